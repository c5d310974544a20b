"""An answer as OpenAI's JSON. Constant parts are bytes made once an answer; only text is escaped as it comes."""

from typing import Any

import msgspec

from holdfast.domain.dialect import Dialect, Said
from holdfast.domain.request import Chunk, TokenLogprob
from holdfast.gateway.marks import Rest, id_line
from holdfast.gateway.order import Order
from holdfast.gateway.reading import Reading
from holdfast.gateway.refusals import Refusal

_json = msgspec.json.Encoder().encode
DONE = b"data: [DONE]\n\n"


def keep_alive(why: str) -> bytes:
    """A comment for one that waits, with what it waits for: its place in the queue, for instance. One line, whatever it says."""
    said = why.encode("ascii", "replace").replace(b"\n", b" ").replace(b"\r", b" ")
    return b": keep-alive; %b\n" % said


def fingerprint(digest: str) -> str:
    """system_fingerprint of a release."""
    return f"fp_{digest[:16]}"


def usage(order: Order, reading: Reading) -> bytes:
    """The usage object: prompt tokens split as DeepSeek does, and how often the answer moved."""
    prompt, cached, said = len(order.generation.prompt_ids), reading.cached, reading.tokens
    return (
        b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,"prompt_cache_hit_tokens":%d,'
        b'"prompt_cache_miss_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d},'
        b'"completion_tokens_details":{"reasoning_tokens":%d},"holdfast":{"moves":%d}}'
        % (prompt, said, prompt + said, cached, prompt - cached, cached, reading.parser.reasoning_tokens, reading.moves)
    )


def logprobs_json(rows: list[TokenLogprob], dialect: Dialect) -> bytes:
    """OpenAI's logprobs object for a few tokens."""

    def one(token: int, logprob: float) -> dict[str, Any]:
        raw = dialect.bytes_of(token)
        return {"token": raw.decode("utf-8", "replace"), "logprob": max(logprob, -9999.0), "bytes": list(raw)}

    content = [
        one(row.id, row.logprob) | {"top_logprobs": [one(token, logprob) for token, logprob in row.top]} for row in rows
    ]
    return _json({"content": content})


def _calls_json(said: Said, order: Order, first: int | None) -> bytes:
    """tool_calls; with `first` as a stream's delta, numbered from there on."""
    rows = []
    for i, call in enumerate(said.calls):
        row: dict[str, Any] = {} if first is None else {"index": first + i}
        row |= {"id": f"{call.id}_{order.generation.id}", "type": "function"}
        row["function"] = {"name": call.name, "arguments": call.arguments}
        rows.append(row)
    return _json(rows)


class ChatWriter:
    """One chat completion, as events or whole."""

    __slots__ = ("_dialect", "_order", "_plain", "_prefix", "_suffix")

    def __init__(self, order: Order, dialect: Dialect) -> None:
        self._order = order
        self._dialect = dialect
        head = (
            b'data: {"id":"chatcmpl-%b","object":"chat.completion.chunk","created":%d,"model":%b,"system_fingerprint":"%b",'
        ) % (order.generation.id.encode(), order.created, _json(order.model), fingerprint(order.card.digest).encode())
        self._prefix = head + b'"choices":[{"index":0,"delta":{'
        no_usage = b',"usage":null}\n\n' if order.include_usage else b"}\n\n"
        self._suffix = b',"finish_reason":null}]' + no_usage
        self._plain = b'},"logprobs":null' + self._suffix

    def begin(self) -> bytes:
        """Whose turn it is."""
        return b"id: 0\n" + self._prefix + b'"role":"assistant","content":""' + self._plain

    def said(self, said: Said, reading: Reading) -> bytes:
        """Events for what a chunk said; empty when it said nothing yet. Logprobs go with the first of them."""
        tail = self._plain
        if reading.logprobs:
            tail = b'},"logprobs":' + logprobs_json(reading.logprobs, self._dialect) + self._suffix
        elif not (said.reasoning or said.calls or reading.done):  # by far the commonest
            if not said.content:
                return b""
            return b'id: %d\n%b"content":%b%b' % (reading.tokens, self._prefix, _json(said.content), tail)
        events = b""
        shows = said.content or (reading.logprobs and not said.reasoning and not said.calls)
        if said.reasoning:
            more = "r" if shows or said.calls else ""
            events = id_line(reading, more) + self._prefix + b'"reasoning_content":' + _json(said.reasoning) + tail
            tail = self._plain
        if shows:
            mark = id_line(reading, "c" if said.calls else "")
            events += mark + self._prefix + b'"content":' + _json(said.content) + tail
            tail = self._plain
        if said.calls:
            first = reading.calls - len(said.calls)
            calls = b'"tool_calls":' + _calls_json(said, self._order, first)
            events += id_line(reading) + self._prefix + calls + tail
        return events

    def rest(self, rest: Rest, chunk: Chunk, reading: Reading) -> bytes:
        """Events for what a chunk says and its reader still lacks."""
        return b"".join([self.said(rest.take(piece), reading) for piece in rest.pieces(chunk)])

    def last(self, reading: Reading, given: str = "") -> bytes:
        """The finish, the usage if asked for, how often the answer moved, and the end mark.

        `given`: the mark's `ending`; f when the finish was given before, u when the usage was too. A comment stands in the
        block of the event that follows: one that stands alone would be an event without data for readers that remember ids.
        """
        order, events = self._order, b""
        if given not in ("f", "u"):
            finish = self._plain.replace(b'"finish_reason":null', b'"finish_reason":"' + reading.finish_word() + b'"')
            events = id_line(reading, "f") + self._prefix + finish
        if order.include_usage and given != "u":
            head = self._prefix[: self._prefix.index(b'"choices"')]
            events += id_line(reading, "u") + head + b'"choices":[],"usage":' + usage(order, reading) + b"}\n\n"
        return events + b": holdfast moves=%d\n" % reading.moves + DONE

    def cut(self, said: Refusal) -> bytes:
        """The error as an event, for which OpenAI's clients raise it."""
        return b"data: " + said.body + b"\n\n"

    def whole(self, reading: Reading, said: Said, logprobs: bytes | None) -> bytes:
        """A chat.completion object."""
        order = self._order
        content = b"null" if said.calls and not said.content else _json(said.content)
        reasoning = b',"reasoning_content":' + _json(said.reasoning) if said.reasoning else b""
        calls = b',"tool_calls":' + _calls_json(said, order, None) if said.calls else b""
        return (
            b'{"id":"chatcmpl-%b","object":"chat.completion","created":%d,"model":%b,"system_fingerprint":"%b",'
            b'"choices":[{"index":0,"message":{"role":"assistant","content":%b%b%b},"logprobs":%b,"finish_reason":"%b"}],'
            b'"usage":%b}'
        ) % (
            order.generation.id.encode(),
            order.created,
            _json(order.model),
            fingerprint(order.card.digest).encode(),
            content,
            reasoning,
            calls,
            logprobs or b"null",
            reading.finish_word(),
            usage(order, reading),
        )
