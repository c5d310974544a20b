"""CORS: which other sites' web pages may ask, as a browser wants to be told. Nothing of it counts for anybody but browsers."""

import re

from holdfast.domain.address import is_loopback
from holdfast.gateway.incoming import Request

WORDS = re.compile(rb"[A-Za-z0-9\-]{1,64}(?: ?, ?[A-Za-z0-9\-]{1,64}){0,63}")
PAGE = re.compile(rb"https?://([0-9a-z.]+|\[[0-9a-f:.]+\])(?::[0-9]+)?")
SHOWN = b"x-request-id, retry-after, retry-after-ms, x-holdfast-answer, x-holdfast-resume, x-holdfast-seed, x-holdfast-moves, "
SHOWN += b"x-holdfast-continuable, x-holdfast-degraded, x-holdfast-replayed"
PREFLIGHT_S = 600


class Cors:
    """Origins as a browser writes them: scheme, host, port where it is not the usual one. `*` is all of them."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._origins = frozenset(origin.rstrip("/").lower().encode() for origin in origins)
        self._all = b"*" in self._origins

    def lines(self, request: Request) -> bytes:
        """Header lines for an answer to this request. Without Origin it comes from no web page."""
        origin = request.headers.get(b"origin")
        if origin is None:
            return b""
        if not self._all and origin.lower() not in self._origins:
            return b"vary: origin\r\n"
        said = b"*" if self._all else origin
        return b"vary: origin\r\naccess-control-allow-origin: %b\r\naccess-control-expose-headers: %b\r\n" % (
            said,
            SHOWN,
        )

    def strange(self, origin: bytes) -> bool:
        """Whether it is a web page from elsewhere, and none that may ask. Programs that are no browsers name other schemes."""
        said = origin.lower()
        if self._all or said in self._origins or not (said.startswith((b"http:", b"https:")) or said == b"null"):
            return False
        page = PAGE.fullmatch(said)
        return page is None or not is_loopback(page[1].decode().strip("[]"))

    def preflight(self, request: Request, methods: bytes) -> bytes:
        """Further lines for a browser that asks before it asks; nothing for others."""
        headers = request.headers
        if b"access-control-request-method" not in headers or b"allow-origin" not in self.lines(request):
            return b""
        lines = b"access-control-allow-methods: %b\r\naccess-control-max-age: %d\r\n" % (methods, PREFLIGHT_S)
        wanted = headers.get(b"access-control-request-headers", b"")
        return lines + b"access-control-allow-headers: %b\r\n" % wanted if WORDS.fullmatch(wanted) else lines
