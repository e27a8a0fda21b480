"""Connect, gRPC-Web and WebSocket: the services of the port for browsers, scripts and curl.

Written by hand over ``service.asgi``, as gRPC is. PyPI's ``connectrpc`` would serve the same
methods, but reads and decodes a request before a handler can say whose call it is, sets deadlines
and maps errors by itself, converts JSON on the event loop, and brings a second implementation of
protobuf; what it saves beside that is the framing, which gRPC has here already.

``connect_protocol`` is Connect, ``grpc_web`` gRPC-Web, ``websocket`` calls over WebSocket;
``codecs`` is JSON and protobuf for all of them, ``schema`` what OpenAPI says of the JSON.
"""
