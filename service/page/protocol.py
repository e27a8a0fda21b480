"""The page and its files over HTTP, under a policy that lets nothing in from elsewhere."""

from __future__ import annotations

from service.asgi.events import Headers, Receive, Scope, Send, header
from service.page.assets import Asset, read_assets

ROOT = "/"
PREFIX = "/page/"
_INDEX = "index.html"
# The page is built of nodes and never of markup, which trusted types hold it to: what a model or
# its card says stays text. Nothing frames it, and it sends nothing to another origin.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_GUARDS: Headers = [
    (b"content-security-policy", POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(self), payment=(), usb=()"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]
_METHODS = ("GET", "HEAD")


class PageProtocol:
    """A Protocol: ``/``, and what it loads from ``/page/``. It asks for no token; calls do."""

    def __init__(self) -> None:
        assets = read_assets()
        self._assets = {PREFIX + name: asset for name, asset in assets.items()}
        self._assets[ROOT] = self._assets.pop(PREFIX + _INDEX)

    def speaks(self, scope: Scope) -> bool:
        return scope["path"] in self._assets and scope["method"] in _METHODS

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        asset = self._assets[scope["path"]]
        takes_gzip = b"gzip" in header(scope, b"accept-encoding")
        # A new release has new files under the old names: browsers ask, and mostly hear 304.
        held = header(scope, b"if-none-match")
        caching: Headers = [
            (b"etag", b"W/" + asset.etag),
            (b"cache-control", b"no-cache"),
            (b"vary", b"accept-encoding"),
        ]
        if _has(held, asset.etag):
            await _send(send, 304, [*caching, *_GUARDS], b"")
            return
        body = asset.compressed if takes_gzip else asset.body
        headers = [*caching, *_GUARDS, *_describing(asset, body, takes_gzip)]
        await _send(send, 200, headers, b"" if scope["method"] == "HEAD" else body)


def _has(held: bytes, etag: bytes) -> bool:
    """Whether a browser holds it, by its header If-None-Match."""
    return etag in (part.strip().removeprefix(b"W/") for part in held.split(b","))


def _describing(asset: Asset, body: bytes, is_compressed: bool) -> Headers:
    headers = [(b"content-type", asset.content_type), (b"content-length", b"%d" % len(body))]
    return [*headers, (b"content-encoding", b"gzip")] if is_compressed else headers


async def _send(send: Send, status: int, headers: Headers, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
