"""The ASGI application: every protocol of HTTP that calls come in."""
