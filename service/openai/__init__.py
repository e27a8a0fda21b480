"""OpenAI's API over HTTP: text completions, embeddings and the list of models."""
