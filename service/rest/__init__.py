"""The Open Inference Protocol over REST, with Triton's extensions of it."""
