"""Server-sent events, cut into whole ones, and the mark from which the rest can be asked for. Pure: bytes in, bytes out.

Only whole events are handed on, byte for byte as they came. Whoever reads them never sees the end of one connection in the
middle of an event and its beginning once more on the next. Comments that stand alone end here: openai's own reader
(3.54) takes one that follows an id for an event without data, and fails.
"""

import json
import re
from enum import Enum

# A blank line: two line ends, each of which may be written in three ways. Atomic, else CR LF alone would count as two.
_BLANK = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_BLANK_BYTES_MAX = 4
# How streams end that have no [DONE], by the names of their last events.
_ENDS = ("response.completed", "response.incomplete", "message_stop")
_FAILURES = ("response.failed", "error")
# The worker that wrote this lost the answer to another one; the answer itself goes on.
_ELSEWHERE = ("answer_taken_over",)


class Cutter:
    """Whole events out of pieces of any size."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The events that `data` completes, each with its blank line; what is left waits for more."""
        searched = max(0, len(self._rest) - _BLANK_BYTES_MAX + 1)
        text = self._rest + data
        events, begin = [], 0
        for blank in _BLANK.finditer(text, searched):
            events.append(text[begin : blank.end()])
            begin = blank.end()
        self._rest = text[begin:]
        return events

    def drop(self) -> None:
        """Forget the beginning of an event whose end will never come."""
        self._rest = b""


class Verdict(Enum):
    """What to do with an event."""

    HAND_ON = "hand on"
    DROP = "drop"  # the reader has it, or there is nothing in it
    LEAVE = "leave"  # this connection has nothing more to say, another one has


OPENING = "0"  # of streams whose events are numbered: 0.1 and so on


class Mark:
    """How far a stream was handed on: its last event id, and how many events without an id came after it."""

    def __init__(self) -> None:
        self.last_id = ""
        self.over = False
        self._unmarked = 0
        self._repeats = 0

    @property
    def bare(self) -> bool:
        """Whether nothing but the opening events, whose ids begin with 0, was handed on."""
        return (not self.last_id or _opens(self.last_id)) and not self._unmarked

    def again(self) -> None:
        """The stream was asked for anew, from `last_id`: it repeats the events that came after that without an id."""
        self._repeats = self._unmarked

    def see(self, event: bytes) -> Verdict:
        """Take note of a whole event, in the order in which they came."""
        kind, name, data = _fields(event)
        if data == b"[DONE]":
            self.over = True
            return Verdict.HAND_ON
        if data is not None and (data.startswith(b'{"error"') or kind in _FAILURES):
            return self._failed(data)
        if name is not None and _opens(name) and _opens(self.last_id) and _number(name) <= _number(self.last_id):
            return Verdict.DROP  # the same answer, begun once more
        self.over = self.over or kind in _ENDS
        if name is not None:
            self.last_id = name
            self._unmarked = self._repeats = 0
        if data is None:
            return Verdict.DROP
        if name is None and self._repeats:
            self._repeats -= 1
            return Verdict.DROP
        self._unmarked += name is None
        return Verdict.HAND_ON

    def _failed(self, data: bytes) -> Verdict:
        """An error is the end of the answer, unless it only says that the answer goes on elsewhere."""
        if code_of(data) in _ELSEWHERE:
            return Verdict.LEAVE
        self.over = True
        return Verdict.HAND_ON


def _opens(name: str) -> bool:
    """Whether this is the id of an event that comes before anything is said."""
    return name.partition(".")[0] == OPENING


def _number(name: str) -> int:
    """Of such an event; the only one of a stream that numbers none is 0."""
    number = name.partition(".")[2]
    return int(number) if number.isascii() and number.isdigit() else 0


def _fields(event: bytes) -> tuple[str, str | None, bytes | None]:
    """The event's kind, its id and its data, None where it has none. Comments and other fields mean nothing here."""
    kind = ""
    name: str | None = None
    data: bytes | None = None
    for line in event.splitlines():
        field, _, value = line.partition(b":")
        if field == b"data":
            said = value.removeprefix(b" ")
            data = said if data is None else data + b"\n" + said
        elif field == b"id" and b"\0" not in value:
            name = value.removeprefix(b" ").decode("utf-8", "replace")
        elif field == b"event":
            kind = value.removeprefix(b" ").decode("utf-8", "replace")
    return kind, name, data


def code_of(body: bytes) -> str:
    """The code in an error body, or in a Response that has failed; empty when it is none."""
    try:
        said = json.loads(body)
        return str(said.get("response", said)["error"]["code"])
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""
