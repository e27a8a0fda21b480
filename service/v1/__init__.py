"""unroll.v1: the service of our own protocol."""
