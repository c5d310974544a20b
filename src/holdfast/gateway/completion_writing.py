"""A raw completion as OpenAI's JSON, with logprobs in their old shape."""

from typing import Any

import msgspec

from holdfast.domain.dialect import Dialect, Said
from holdfast.domain.request import Chunk, TokenLogprob
from holdfast.gateway.completion_wire import ECHO_TEXT
from holdfast.gateway.marks import Rest, id_line
from holdfast.gateway.order import Order
from holdfast.gateway.plain import text_of
from holdfast.gateway.reading import Reading
from holdfast.gateway.writing import OpenAIWriter, logprobs_json

_json = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
CONTINUES = 0xC0, 0x80  # how UTF-8 marks a byte that does not begin a character


class CompletionWriter(OpenAIWriter):
    """One completion, or one of several."""

    ID, PIECE, WHOLE = b"cmpl-", b"text_completion", b"text_completion"
    EMPTY = b'"text":""'

    __slots__ = ("_echo", "_offset")

    def __init__(self, order: Order, dialect: Dialect) -> None:
        super().__init__(order, dialect)
        self._echo = ""
        if order.more:
            ids = order.generation.prompt_ids
            begun = len(dialect.complete("", None)) if order.more == ECHO_TEXT else 0
            self._echo = text_of(dialect, ids[begun:])
        self._offset = len(self._echo)  # characters that were begun so far

    def begin(self) -> bytes:
        """The prompt, where it is to be repeated."""
        if not self._echo:
            return b""
        return b"id: 0\n" + self._prefix + b'"text":' + _json(self._echo) + self._plain

    def said(self, said: Said, reading: Reading) -> bytes:
        """One event for what a chunk said; empty when it said nothing yet."""
        if not reading.logprobs:
            if not said.content:
                return b""
            return id_line(reading) + self._prefix + b'"text":' + _json(said.content) + self._plain
        rows = self._rows(logprobs_json(reading.logprobs, self._dialect))
        tail = b',"logprobs":' + rows + self._suffix
        return id_line(reading) + self._prefix + b'"text":' + _json(said.content) + tail

    def rest(self, rest: Rest, chunk: Chunk, reading: Reading) -> bytes:
        """The same for what its reader still lacks; what they have is counted all the same."""
        events = b""
        for piece in rest.pieces(chunk):
            said = rest.take(piece)
            if reading.logprobs is None and piece.logprobs:
                self._skip(piece.logprobs)
            events += self.said(said, reading)
        return events

    def choice(self, reading: Reading, said: Said, logprobs: bytes | None) -> bytes:
        """This choice, as a whole."""
        rows = self._rows(logprobs) if logprobs else b"null"
        return b'{"index":%d,"text":%b,"logprobs":%b,"finish_reason":"%b"}' % (
            self._order.index, _json(self._echo + said.content), rows, reading.finish_word()
        )  # fmt: skip

    def _skip(self, rows: list[TokenLogprob]) -> None:
        for row in rows:
            self._offset += _begun(self._dialect.bytes_of(row.id))

    def _rows(self, logprobs: bytes) -> bytes:
        """OpenAI's logprobs object in its old shape: lists side by side. Moves the offset on."""
        rows: list[dict[str, Any]] = _decode(logprobs)["content"]
        offsets = []
        for row in rows:
            offsets.append(self._offset)
            self._offset += _begun(bytes(row["bytes"]))
        shown = {
            "tokens": [_token(row) for row in rows],
            "token_logprobs": [row["logprob"] for row in rows],
            "top_logprobs": [{_token(one): one["logprob"] for one in row["top_logprobs"]} for row in rows],
            "text_offset": offsets,
        }
        return _json(shown)


def _begun(raw: bytes) -> int:
    """How many characters begin in these bytes."""
    mask, mark = CONTINUES
    return sum(byte & mask != mark for byte in raw)


def _token(row: dict[str, Any]) -> str:
    """A token's text; of one that is no whole text its bytes, as OpenAI writes them."""
    raw = bytes(row["bytes"])
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
