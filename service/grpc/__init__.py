"""The front end of grpcio's own server, for where Envoy does not run."""
