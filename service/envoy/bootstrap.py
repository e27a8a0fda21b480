"""Envoy's configuration, from the service's settings."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from service.front_end import FrontEndSettings

# Of the relay, in the interpreter within Envoy.
_APPLICATION = "service.envoy.relay:app"
_TYPES = "type.googleapis.com/envoy.extensions"
_HTTP = f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"
_MODULE = f"{_TYPES}.filters.http.dynamic_modules.v3.DynamicModuleFilter"
_TLS = f"{_TYPES}.transport_sockets.tls.v3.DownstreamTlsContext"
_SECRET = f"{_TYPES}.transport_sockets.tls.v3.Secret"
_CONNECTIONS = f"{_TYPES}.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"

# A connection that is silent for so long is asked whether anybody is there, and closed if nobody
# answers in time.
_KEEPALIVE_SECONDS, _KEEPALIVE_TIMEOUT_SECONDS = 30.0, 20.0
# For the other side of a connection of HTTP/1.1 to close it, once all has been written.
_DELAYED_CLOSE_SECONDS = 0.25
# What a call, and a connection, may send before it is read; HTTP/2 lets neither be less.
_STREAM_WINDOW, _CONNECTION_WINDOW = 65_536, 1_048_576
# Of a connection, beyond which Envoy neither reads from it nor takes responses for it.
_BUFFER_BYTES = 32_768
_MOST_HEADERS = 256
# Headers beyond the setting are refused by the service, which can say so; Envoy closes the
# connection at this multiple.
_HEADERS_FACTOR = 3

_RBAC = f"{_TYPES}.filters.http.rbac.v3.RBAC"

# Paths whose escapes are UTF-8 (RFC 3629, section 4). pyvoy decodes them before it calls anything,
# and a request that it cannot decode would wait for its answer for ever.
_HEX, _NEXT = "[0-9A-Fa-f]", "%[89ABab][0-9A-Fa-f]"
_READABLE_PATH = "(?:{})*".format(
    "|".join(
        (
            "[!-$&-~]+",
            f"%[0-7]{_HEX}",
            f"%(?:[Cc][2-9A-Fa-f]|[Dd]{_HEX}){_NEXT}",
            f"%(?:[Ee]0%[ABab]{_HEX}|[Ee][Dd]%[89]{_HEX}|[Ee][1-9A-Ca-cEFef]{_NEXT}){_NEXT}",
            f"%[Ff](?:0%[9ABab]{_HEX}|[1-3]{_NEXT}|4%8{_HEX}){_NEXT}{_NEXT}",
        )
    )
)
# A call that ends before its caller has sent all, as a stream that is refused does: without this
# Envoy resets it at once, and what its caller has not read yet is lost, the status too.
_RUNTIME = {"envoy.reloadable_features.allow_multiplexed_upstream_half_close": True}

CERTIFICATE, AUTHORITIES = "certificate", "authorities"


def bootstrap(
    settings: FrontEndSettings, host: str, port: int, module: str, tls: Any | None = None
) -> dict[str, Any]:
    """host: an IP address. module: pyvoy's, a shared library. tls: of the listener."""
    chain: dict[str, Any] = {
        "filters": [
            {
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": _connection_manager(settings, module),
            }
        ],
        "transport_socket_connect_timeout": _duration(settings.handshake_seconds),
    }
    if tls:
        chain["transport_socket"] = tls
    listener = {
        "name": "calls",
        "address": {
            "socket_address": {"address": host, "port_value": port, "ipv4_compat": host == "::"}
        },
        "filter_chains": [chain],
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        # Two servers on one port would split the calls between them in silence.
        "enable_reuse_port": False,
    }
    return {
        "static_resources": {"listeners": [listener]},
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": _CONNECTIONS,
                        "max_active_downstream_connections": settings.max_connections,
                    },
                }
            ]
        },
        "layered_runtime": {"layers": [{"name": "static", "static_layer": _RUNTIME}]},
        # Nobody asks Envoy for them.
        "stats_config": {"stats_matcher": {"reject_all": True}},
    }


def _connection_manager(settings: FrontEndSettings, module: str) -> dict[str, Any]:
    headers_kib = math.ceil(_HEADERS_FACTOR * settings.max_metadata_bytes / 1024)
    return {
        "@type": _HTTP,
        "stat_prefix": "calls",
        "server_name": "unroll",
        "generate_request_id": False,
        # Whose call it is, no header of the caller's decides.
        "use_remote_address": True,
        "skip_xff_append": True,
        "route_config": {"virtual_hosts": [{"name": "calls", "domains": ["*"]}]},
        "max_request_headers_kb": min(headers_kib, 8192),
        "request_headers_timeout": _duration(settings.handshake_seconds),
        # A stream may be silent for as long as it likes: the service bounds bodies and readers.
        "stream_idle_timeout": "0s",
        # A socket's end waits for it.
        "delayed_close_timeout": _duration(_DELAYED_CLOSE_SECONDS),
        # A socket is a stream as any other, with its limits.
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "common_http_protocol_options": {
            "idle_timeout": _duration(settings.idle_connection_seconds),
            "max_headers_count": _MOST_HEADERS,
        },
        "http2_protocol_options": {
            "allow_connect": True,  # for WebSocket, RFC 8441
            "max_concurrent_streams": settings.max_calls_per_connection,
            "initial_stream_window_size": _STREAM_WINDOW,
            "initial_connection_window_size": _CONNECTION_WINDOW,
            "connection_keepalive": {
                "interval": _duration(_KEEPALIVE_SECONDS),
                "timeout": _duration(_KEEPALIVE_TIMEOUT_SECONDS),
            },
        },
        "local_reply_config": {"mappers": [_unreadable_path()]},
        "http_filters": [
            _readable_paths(),
            {
                "name": "pyvoy",
                "typed_config": {
                    "@type": _MODULE,
                    "dynamic_module_config": {"module": {"local": {"filename": module}}},
                    "filter_name": "pyvoy",
                    "terminal_filter": True,
                    "filter_config": {
                        "@type": "type.googleapis.com/google.protobuf.StringValue",
                        "value": json.dumps(
                            {
                                "app": _APPLICATION,
                                "interface": "asgi",
                                "root_path": "",
                                "lifespan": True,
                            }
                        ),
                    },
                },
            },
        ],
    }


def _readable_paths() -> dict[str, Any]:
    """A filter that refuses any other with 403."""
    path = {"safe_regex": {"regex": _READABLE_PATH}}
    policy = {"permissions": [{"url_path": {"path": path}}], "principals": [{"any": True}]}
    rules = {"action": "ALLOW", "policies": {"readable paths": policy}}
    return {
        "name": "envoy.filters.http.rbac",
        "typed_config": {"@type": _RBAC, "rules": rules},
    }


def _unreadable_path() -> dict[str, Any]:
    """What becomes of the filter's 403, which nothing else in Envoy answers with."""
    status = {"default_value": 403, "runtime_key": "unroll.unreadable_path"}
    return {
        "filter": {"status_code_filter": {"comparison": {"op": "EQ", "value": status}}},
        "status_code": 400,
        "body": {"inline_string": "the path is not UTF-8 behind its escapes\n"},
    }


def tls_socket(secrets: Path, is_mutual: bool) -> dict[str, Any]:
    """Of the listener. secrets: the folder in which Envoy watches for the secrets' files."""
    context: dict[str, Any] = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [_watched(CERTIFICATE, secrets)],
    }
    if is_mutual:
        context["validation_context_sds_secret_config"] = _watched(AUTHORITIES, secrets)
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": _TLS,
            "common_tls_context": context,
            "require_client_certificate": is_mutual,
        },
    }


def _watched(name: str, secrets: Path) -> dict[str, Any]:
    file = secrets / f"{name}.json"
    return {
        "name": name,
        "sds_config": {
            "path_config_source": {"path": str(file), "watched_directory": {"path": str(secrets)}},
            "resource_api_version": "V3",
        },
    }


def secret(name: str, content: dict[str, Any]) -> str:
    """A secret's file, as Envoy reads it."""
    resource = {"@type": _SECRET, "name": name, **content}
    return json.dumps({"version_info": "1", "resources": [resource]})


def _duration(seconds: float) -> str:
    return f"{seconds:.3f}s"
