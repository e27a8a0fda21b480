"""OpenAI's API over HTTP: text completions and the list of models."""
