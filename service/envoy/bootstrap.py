"""Envoy's configuration, from the service's settings."""

from __future__ import annotations

import json
import math
import socket
from pathlib import Path
from typing import Any

from service.front_end import FrontEndSettings

# Of the relay, in the interpreter within Envoy.
_APPLICATION = "service.envoy.relay:app"
_TYPES = "type.googleapis.com/envoy.extensions"
_OVERLOAD = "type.googleapis.com/envoy.config.overload.v3"
_TIMERS = f"{_OVERLOAD}.ScaleTimersOverloadActionConfig"
_SHRINK = f"{_OVERLOAD}.ShrinkHeapConfig"
_HTTP = f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"
_INSPECTORS = f"{_TYPES}.filters.listener"
_MODULE = f"{_TYPES}.filters.http.dynamic_modules.v3.DynamicModuleFilter"
_TLS = f"{_TYPES}.transport_sockets.tls.v3.DownstreamTlsContext"
_SECRET = f"{_TYPES}.transport_sockets.tls.v3.Secret"
_COUNT = "global_downstream_max_connections"
_HEAP = f"{_TYPES}.resource_monitors.fixed_heap.v3.FixedHeapConfig"
_CONNECTIONS = f"{_TYPES}.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"

# A connection that is silent for so long is asked whether anybody is there, and closed if nobody
# answers in time.
_KEEPALIVE_SECONDS, _KEEPALIVE_TIMEOUT_SECONDS = 30.0, 20.0
# For the other side of a connection of HTTP/1.1 to close it, once all has been written.
_DELAYED_CLOSE_SECONDS = 0.25
# What a call may send before it is read; Envoy lets it be no less. A connection may send as much
# for each of its calls: with less, calls whose bodies wait for their turn would hold up all others.
_STREAM_WINDOW, _MOST_WINDOW = 65_536, 2**31 - 1
# Of a connection, beyond which Envoy neither reads from it nor takes responses for it.
_BUFFER_BYTES = 32_768
# What the kernel holds of a connection that is not read. By itself it lets that grow to megabytes.
_SEND_BUFFER_BYTES = 65_536
_DRAIN_SECONDS = 1.0
_MOST_HEADERS = 256
# Calls are weighed from 8 KiB on, in eight classes each twice the one before.
_TRACKED_POWER = 13
_UNFREED_BYTES = 16 << 20
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

# Secrets, and the link to the folder that holds the newest of them.
CERTIFICATE, AUTHORITIES, CURRENT = "certificate", "authorities", "current"


def bootstrap(
    settings: FrontEndSettings,
    host: str,
    port: int,
    module: str,
    heap_bytes: int,
    tls: Any | None = None,
    shares_port: bool = False,
) -> dict[str, Any]:
    """host: an IP address. module: pyvoy's, a shared library. heap_bytes: near which load is shed.
    tls: of the listener. shares_port: with other Envoys of the same service."""
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
        # A connection that does not say what it speaks in this time is closed.
        "listener_filters": [_inspector("tls" if tls else "http")],
        "listener_filters_timeout": _duration(settings.handshake_seconds),
        "filter_chains": [chain],
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        # Connections take it over from the socket that listens for them.
        "socket_options": [
            {
                "level": socket.SOL_SOCKET,
                "name": socket.SO_SNDBUF,
                "int_value": _SEND_BUFFER_BYTES,
                "state": "STATE_PREBIND",
            }
        ],
        # Two servers on one port would split the calls between them in silence.
        "enable_reuse_port": shares_port,
    }
    return {
        # Whoever gets secrets has to have a name.
        "node": {"id": "unroll", "cluster": "unroll"},
        "static_resources": {"listeners": [listener]},
        "overload_manager": _overload_manager(settings, heap_bytes),
        "layered_runtime": {"layers": [{"name": "static", "static_layer": _RUNTIME}]},
        # Nobody asks Envoy for them.
        "stats_config": {"stats_matcher": {"reject_all": True}},
    }


def _inspector(of: str) -> dict[str, Any]:
    kind = "TlsInspector" if of == "tls" else "HttpInspector"
    return {
        "name": f"envoy.filters.listener.{of}_inspector",
        "typed_config": {"@type": f"{_INSPECTORS}.{of}_inspector.v3.{kind}"},
    }


def _overload_manager(settings: FrontEndSettings, heap_bytes: int) -> dict[str, Any]:
    """What is shed as Envoy's own memory or connections run short, in the order in which it sets
    in."""
    return {
        "refresh_interval": "0.1s",
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": _TRACKED_POWER},
        "resource_monitors": [
            _monitor("fixed_heap", _HEAP, max_heap_size_bytes=heap_bytes),
            _monitor(
                _COUNT, _CONNECTIONS, max_active_downstream_connections=settings.max_connections
            ),
        ],
        "actions": [
            {
                "name": "envoy.overload_actions.reduce_timeouts",
                # Also as connections run short: those without a call make room for newcomers.
                "triggers": [_scaled("fixed_heap", 0.5, 0.8), _scaled(_COUNT, 0.75, 0.95)],
                "typed_config": {
                    "@type": _TIMERS,
                    "timer_scale_factors": [
                        {
                            "timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE",
                            "min_timeout": _duration(settings.handshake_seconds),
                        }
                    ],
                },
            },
            {
                # The heaviest first: a caller whose calls hold little loses nothing.
                "name": "envoy.overload_actions.reset_high_memory_stream",
                "triggers": [_scaled("fixed_heap", 0.6, 0.9)],
            },
            {
                # What was freed counts until it is released.
                "name": "envoy.overload_actions.shrink_heap",
                "triggers": [_beyond(0.6)],
                "typed_config": {
                    "@type": _SHRINK,
                    "timer_interval": "1s",
                    "max_unfreed_memory_bytes": _UNFREED_BYTES,
                },
            },
            {
                "name": "envoy.overload_actions.disable_http_keepalive",
                "triggers": [_beyond(0.92)],
            },
            {
                "name": "envoy.overload_actions.stop_accepting_requests",
                "triggers": [_beyond(0.95)],
            },
        ],
        "loadshed_points": [
            {"name": "envoy.load_shed_points.tcp_listener_accept", "triggers": [_beyond(0.95)]}
        ],
    }


def _monitor(name: str, kind: str, **config: int) -> dict[str, Any]:
    return {"name": f"envoy.resource_monitors.{name}", "typed_config": {"@type": kind, **config}}


def _scaled(monitor: str, first: float, last: float) -> dict[str, Any]:
    """From one share of what is monitored on, and in full from another."""
    thresholds = {"scaling_threshold": first, "saturation_threshold": last}
    return {"name": f"envoy.resource_monitors.{monitor}", "scaled": thresholds}


def _beyond(share: float) -> dict[str, Any]:
    """Of the heap."""
    return {"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": share}}


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
        # From telling a caller that its connection ends to ending it: what is on its way arrives.
        "drain_timeout": _duration(_DRAIN_SECONDS),
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
            "initial_connection_window_size": min(
                settings.max_calls_per_connection * _STREAM_WINDOW, _MOST_WINDOW
            ),
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
    file = secrets / CURRENT / f"{name}.json"
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
