"""A request's head, read strictly: RFC 9112 without its leniencies, so that nobody in front of us can read it otherwise.

What two parsers could take differently is refused and not repaired: that is how requests are smuggled. The whole head is here
before a word of it is believed.
"""

import re
from functools import lru_cache

from msgspec import Struct

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
# Only spaces are trimmed around a value: there are readers that don't take a tab for blank, so one stays a part of it.
# Possessive throughout (`++`): what does not match fails at once, however long it is.
LINE = re.compile(rb"([A-Z]{1,20}) ([!-~]++) HTTP/1\.([01])\r\n")
FIELD = re.compile(rb"(" + TOKEN + rb"):[ ]*+([^\x00-\x08\x0a-\x1f\x7f]*+)(?=\r\n)")
FIELDS = re.compile(rb"\r\n(" + TOKEN + rb"):[ ]*+([^\x00-\x08\x0a-\x1f\x7f]*+)(?=\r\n)")
ABSOLUTE = re.compile(rb"(?i:https?)://([0-9A-Za-z.\-_~:\[\]]+)(/[!-~]*|\?[!-~]*|)")
HOST = re.compile(
    rb"(?:[0-9A-Za-z_~%!$&'()*+,;=\-]+(?:\.[0-9A-Za-z_~%!$&'()*+,;=\-]+)*\.?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
)
LENGTH = re.compile(rb"0|[1-9][0-9]{0,17}")
FOREIGN = re.compile(rb"[A-Z]{1,20} [!-~]++ HTTP/([0-9]++)\.([0-9]++)\r\n")
WORDS = re.compile(rb"[A-Z]{0,20}(?: [!-~]*+(?: (?:H(?:T(?:T(?:P(?:/(?:[0-9.]{0,8}\r?)?)?)?)?)?)?)?)?")

# headers that we or whoever stands before us go by: sent twice, each could go by another one
ONCE_ONLY = frozenset(
    (
        *(b"host", b"authorization", b"content-length", b"transfer-encoding", b"expect", b"origin", b"content-type"),
        *(b"idempotency-key", b"last-event-id", b"x-api-key", b"x-request-id", b"content-encoding"),
        *(b"x-holdfast-deadline-s", b"x-holdfast-priority", b"x-holdfast-degrade", b"x-holdfast-session"),
        b"x-holdfast-resume",
    )
)
LENGTH_LINE = re.compile(rb"\r\ncontent-length:[ ]*+([0-9]++)", re.IGNORECASE)
CHUNKED = -1  # a length that is told piece by piece


class BadHead(Exception):
    """It is refused: the status, a sentence, the word it is counted under."""

    def __init__(self, status: int, why: str, code: str = "bad_http") -> None:
        super().__init__(why)
        self.status, self.why, self.code = status, why, code


class Head(Struct):
    """What a head says. Header names are lower case; of a repeated header the last value counts.

    Nobody changes `headers`: on one connection they may be shared by many requests.
    """

    method: bytes
    target: bytes  # a path, or `*`
    headers: dict[bytes, bytes]
    keep_alive: bool
    new: bool  # HTTP/1.1
    length: int  # of the body; or CHUNKED


def read_head(data: bytes, at: int, end: int, headers_max: int) -> Head:
    """The head that lies from `at` to `end`, where its empty line begins.

    Raises:
        BadHead: it is not as it must be.
    """
    line = LINE.match(data, at, end + 2)
    if line is None:
        raise strange_line(data[at : end + 2])
    method, target, minor = line.groups()
    begin = line.end() - 2
    pairs = FIELDS.findall(data, begin, end + 2)
    if len(pairs) != data.count(b"\n", begin, end + 2) - 1:
        raise strange_field(data[begin + 2 : end])
    if len(pairs) > headers_max:
        raise BadHead(
            431, f"The request has {len(pairs)} headers, the limit is {headers_max}; send fewer.", "head_too_large"
        )
    headers = {name.lower(): value for name, value in pairs}
    if data.find(b" \r\n", begin, end + 2) >= 0:
        headers = {name.lower(): value.rstrip(b" ") for name, value in pairs}
    if len(headers) != len(pairs):
        _refuse_repeated(headers, pairs)
    if data.find(b"_", begin, end) >= 0:
        _drop_underscored(headers)
    new = minor == b"1"
    length = _length(headers, new)
    host = headers.get(b"host")
    if host is None:
        if new:
            raise BadHead(400, "A request of HTTP/1.1 needs a Host header; send one.")
    elif not is_host(host):
        raise BadHead(400, "The Host header is no host name with an optional port.")
    if target[0] != 47 or b"#" in target or method in (b"CONNECT", b"TRACE"):
        target = _other_target(method, target, host)
    said = headers.get(b"connection")
    if said is None:
        keep = new
    else:
        words = said.lower()
        keep = b"close" not in words if new else b"keep-alive" in words
    return Head(method, target, headers, keep, new, length)


class Alike(Struct, frozen=True):
    """The head that one connection sends again and again, all but the length of its body."""

    head: Head
    before: bytes  # up to the length
    after: bytes  # from there on, with the empty line

    def match(self, data: bytes, at: int) -> tuple[int, int]:
        """(length, where the body begins) of this same head, if it lies here; else (0, 0)."""
        if not data.startswith(self.before, at):
            return 0, 0
        begin = at + len(self.before)
        end = data.find(b"\r", begin, begin + 19)
        if end < 0 or not data.startswith(self.after, end) or LENGTH.fullmatch(data, begin, end) is None:
            return 0, 0
        return int(data[begin:end]), end + len(self.after)


def alike(head: Head, data: bytes, at: int, end: int) -> Alike | None:
    """What to expect next, after this head from `at` to `end`."""
    said = LENGTH_LINE.search(data, at, end)
    if said is None or head.length <= 0:
        return None
    return Alike(head, data[at : said.start(1)], data[said.end(1) : end + 4])


@lru_cache(maxsize=256)
def is_host(said: bytes) -> bool:
    """Whether it is a host name or address, with or without a port."""
    return HOST.fullmatch(said) is not None


def _length(headers: dict[bytes, bytes], new: bool) -> int:
    """How many bytes of body follow. That is all that Content-Length says, so it goes no further."""
    length, coding = headers.pop(b"content-length", None), headers.get(b"transfer-encoding")
    if b"expect" in headers and new and headers[b"expect"].lower() != b"100-continue":
        raise BadHead(417, "The only expectation met here is 100-continue.")
    if coding is not None:
        if length is not None:
            raise BadHead(400, "Send Content-Length or Transfer-Encoding, not both.")
        if not new:
            raise BadHead(400, "HTTP/1.0 has no Transfer-Encoding; send Content-Length.")
        if coding.lower() != b"chunked":
            raise BadHead(501, "The only Transfer-Encoding spoken here is chunked.")
        return CHUNKED
    if length is None:
        return 0
    if LENGTH.fullmatch(length) is None:
        raise BadHead(400, "Content-Length must be one plain decimal number.")
    return int(length)


def _other_target(method: bytes, target: bytes, host: bytes | None) -> bytes:
    """A target that is not simply a path: the path in it."""
    if method == b"CONNECT":
        raise BadHead(405, "CONNECT is not offered; this is no proxy.", "method_not_allowed")
    if method == b"TRACE":
        raise BadHead(405, "TRACE is not offered.", "method_not_allowed")
    if b"#" in target:
        raise BadHead(400, "The request's target holds a '#'; a fragment is never sent.")
    if target == b"*" and method == b"OPTIONS":
        return target
    whole = ABSOLUTE.fullmatch(target)
    if whole is None:
        raise BadHead(400, "The request's target must be a path that begins with '/'.")
    authority, path = whole.groups()
    if host is not None and authority.lower() != host.lower():
        raise BadHead(400, "The request's target and its Host header name different hosts.")
    return path if path.startswith(b"/") else b"/" + path


def _refuse_repeated(headers: dict[bytes, bytes], pairs: list[tuple[bytes, bytes]]) -> None:
    """Some names came more than once: no harm, unless something depends on which of them counts."""
    seen: set[bytes] = set()
    for raw, value in pairs:
        name = raw.lower()
        if name in seen and name in ONCE_ONLY:
            raise BadHead(400, f"The header {name.decode('latin-1')} may be sent once only.")
        if name in seen and name == b"connection":
            headers[name] += b", " + value
        elif name == b"connection":
            headers[name] = value
        seen.add(name)


def _drop_underscored(headers: dict[bytes, bytes]) -> None:
    """Names with '_' reach nobody: there are servers that take it for '-', so they could pass for one that is meant."""
    for name in [name for name in headers if b"_" in name]:
        if name.replace(b"_", b"-") in ONCE_ONLY:
            raise BadHead(400, f"The header {name.decode('latin-1')} is written with '-', not '_'.")
        del headers[name]


def strange_line(data: bytes) -> BadHead:
    """Why this is no request line."""
    other = FOREIGN.match(data)
    if other is not None and other.groups() not in ((b"1", b"0"), (b"1", b"1")):
        return BadHead(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.", "http_version")
    if data[:1] == b"\x16":
        return BadHead(400, "This port speaks plain HTTP, and that was the beginning of TLS; use http:// here.")
    return BadHead(400, "This is not HTTP/1.1 as it should be: its first line must be METHOD, TARGET and HTTP/1.1.")


def strange_field(fields: bytes) -> BadHead:
    """Which of these lines is no header."""
    for number, line in enumerate(fields.split(b"\r\n"), 1):
        if line[:1] in (b" ", b"\t"):
            return BadHead(400, f"Header {number} is folded over lines; send it in one.")
        if FIELD.match(line + b"\r\n") is None:
            return BadHead(400, f"Header {number} is not NAME: VALUE in plain characters with CRLF at its end.")
    return BadHead(400, "This is not HTTP/1.1 as it should be: lines end with CRLF.")


def hopeless(part: bytes | bytearray, limit: int) -> BadHead | None:
    """Whether a head that is not whole yet can't become a good one: then nobody need wait for the rest."""
    if len(part) > limit:
        return BadHead(
            431, f"The request's head is over the limit of {limit} bytes; send fewer headers.", "head_too_large"
        )
    if b"\n" not in part:
        return None if part == b"\r" or WORDS.fullmatch(part) else strange_line(bytes(part))
    if LINE.match(part) is None:
        return strange_line(bytes(part))
    if part.count(b"\n") != part.count(b"\r\n"):
        return BadHead(400, "This is not HTTP/1.1 as it should be: lines end with CRLF.")
    return None
