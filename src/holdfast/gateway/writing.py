"""An answer as OpenAI's JSON. Constant parts are bytes made once an answer; only text is escaped as it comes."""

from abc import ABC, abstractmethod
from typing import Any

import msgspec

from holdfast.domain.dialect import Dialect, Said, ToolCall
from holdfast.domain.request import Chunk, TokenLogprob
from holdfast.gateway.marks import Rest, id_line
from holdfast.gateway.order import Order
from holdfast.gateway.reading import Reading
from holdfast.gateway.refusals import Refusal
from holdfast.gateway.surface import Usage

_json = msgspec.json.Encoder().encode
DONE = b"data: [DONE]\n\n"
FOR_WANT = ("engine_lost", "no_replica", "overloaded")  # refusals which mean that there was nobody to go on with it


def keep_alive(why: str) -> bytes:
    """A comment for one that waits, with what it waits for: its place in the queue, for instance. One line, whatever it says."""
    said = why.encode("ascii", "replace").replace(b"\n", b" ").replace(b"\r", b" ")
    return b": keep-alive; %b\n" % said


def fingerprint(digest: str) -> str:
    """system_fingerprint of a release."""
    return f"fp_{digest[:16]}"


def usage(order: Order, reading: Reading) -> bytes:
    """The usage object of one answer: prompt tokens split as DeepSeek does, and how often the answer moved."""
    prompt, cached, moves = len(order.generation.prompt_ids), reading.cached, reading.moves
    return usage_json(Usage(prompt, cached, reading.tokens, reading.parser.reasoning_tokens, moves))


def usage_of(choices: list[tuple[Order, Reading]]) -> Usage:
    """What an answer has cost. Choices that were asked with the same prompt count it once."""
    prompts = {id(order.generation.prompt_ids): (order, reading) for order, reading in reversed(choices)}
    return Usage(
        sum(len(order.generation.prompt_ids) for order, _ in prompts.values()),
        sum(reading.cached for _, reading in prompts.values()),
        sum(reading.tokens for _, reading in choices),
        sum(reading.parser.reasoning_tokens for _, reading in choices),
        sum(reading.moves for _, reading in choices),
    )


def usage_json(told: Usage) -> bytes:
    """The usage object."""
    prompt, cached, said = told.prompt_tokens, told.cached_tokens, told.tokens
    return (
        b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,"prompt_cache_hit_tokens":%d,'
        b'"prompt_cache_miss_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d},'
        b'"completion_tokens_details":{"reasoning_tokens":%d},"holdfast":{"moves":%d}}'
        % (prompt, said, prompt + said, cached, prompt - cached, cached, told.reasoning_tokens, told.moves)
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


def _calls_json(said: Said, order: Order) -> bytes:
    """tool_calls."""
    return _json([_call_json(call, order) for call in said.calls])


def _call_json(call: ToolCall, order: Order) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": f"{call.id}_{order.generation.id}", "type": "function", "function": function}


def _calls_delta(said: Said, order: Order, first: int) -> bytes:
    """tool_calls of a stream: whole calls, numbered from `first` on."""
    return _json([{"index": first + i, **_call_json(call, order)} for i, call in enumerate(said.calls)])


def _parts_delta(said: Said, order: Order) -> bytes:
    """tool_calls of a stream: what has come of calls that are still being written. One row a call; the first has its name."""
    rows: dict[int, dict[str, Any]] = {}
    for part in said.parts:
        row = rows.setdefault(part.index, {"index": part.index, "function": {"arguments": ""}})
        if part.name:
            function = {"name": part.name, **row["function"]}
            row |= {"id": f"call_{part.index}_{order.generation.id}", "type": "function", "function": function}
        row["function"]["arguments"] += part.arguments
    return _json(list(rows.values()))


class OpenAIWriter(ABC):
    """An answer in OpenAI's JSON: what chat completions and raw ones have in common."""

    ID = b""
    PIECE = b""  # `object` of an event
    WHOLE = b""  # and of a body
    OPEN, EMPTY, CLOSE = b"", b"", b""  # around what an event says, and what one that says nothing says

    __slots__ = ("_dialect", "_head", "_order", "_plain", "_prefix", "_suffix")

    def __init__(self, order: Order, dialect: Dialect) -> None:
        self._order = order
        self._dialect = dialect
        if not order.stream:
            return
        name = (order.name or order.generation.id).encode()
        self._head = b'data: {"id":"%b%b","object":"%b","created":%d,"model":%b,"system_fingerprint":"%b",' % (
            self.ID, name, self.PIECE, order.created, _json(order.model), fingerprint(order.card.digest).encode()
        )  # fmt: skip
        self._prefix = b'%b"choices":[{"index":%d,%b' % (self._head, order.index, self.OPEN)
        no_usage = b',"usage":null}\n\n' if order.include_usage else b"}\n\n"
        self._suffix = b',"finish_reason":null}]' + no_usage
        self._plain = self.CLOSE + b',"logprobs":null' + self._suffix

    @abstractmethod
    def said(self, said: Said, reading: Reading) -> bytes:
        """Events for what a chunk said."""

    @abstractmethod
    def choice(self, reading: Reading, said: Said, logprobs: bytes | None) -> bytes:
        """This choice, as a whole."""

    def rest(self, rest: Rest, chunk: Chunk, reading: Reading) -> bytes:
        """Events for what a chunk says and its reader still lacks."""
        return b"".join([self.said(rest.take(piece), reading) for piece in rest.pieces(chunk)])

    def last(self, reading: Reading, given: str = "") -> bytes:
        """The finish, the usage if asked for, how often the answer moved, and the end mark.

        `given`: the mark's `ending`; f when the finish was given before, u when the usage was too.
        """
        order, events = self._order, b""
        if given not in ("f", "u"):
            events = id_line(reading, "f") + self._finish(reading.finish_word())
        if order.include_usage and given != "u":
            events += id_line(reading, "u") + self._usage(usage(order, reading))
        return events + b": holdfast moves=%d\n" % reading.moves + DONE

    def _finish(self, word: bytes) -> bytes:
        return (
            self._prefix + self.EMPTY + self._plain.replace(b'"finish_reason":null', b'"finish_reason":"' + word + b'"')
        )

    def _usage(self, told: bytes) -> bytes:
        return self._head + b'"choices":[],"usage":' + told + b"}\n\n"

    def cut(self, said: Refusal) -> bytes:
        """The error as an event, for which OpenAI's clients raise it. When it was for want of replicas, DeepSeek's word for that
        goes ahead of it."""
        word = self._finish(b"insufficient_system_resource") if said.code in FOR_WANT else b""
        return word + b"data: " + said.body + b"\n\n"

    def whole(self, reading: Reading, said: Said, logprobs: bytes | None) -> bytes:
        """The body."""
        return self._body(self.choice(reading, said, logprobs), usage(self._order, reading))

    def _body(self, choices: bytes, told: bytes) -> bytes:
        order = self._order
        return (
            b'{"id":"%b%b","object":"%b","created":%d,"model":%b,"system_fingerprint":"%b","choices":[%b],"usage":%b}'
        ) % (
            self.ID,
            (order.name or order.generation.id).encode(),
            self.WHOLE,
            order.created,
            _json(order.model),
            fingerprint(order.card.digest).encode(),
            choices,
            told,
        )

    # of several choices

    def finished(self, reading: Reading) -> bytes:
        """The event with which this choice ends."""
        return self._finish(reading.finish_word())

    def closing(self, told: Usage) -> bytes:
        """The usage if asked for, all moves, and the end mark."""
        events = self._usage(usage_json(told)) if self._order.include_usage else b""
        return events + b": holdfast moves=%d\n" % told.moves + DONE

    def body(self, choices: list[bytes], told: Usage) -> bytes:
        """The whole answer."""
        return self._body(b",".join(choices), usage_json(told))


class ChatWriter(OpenAIWriter):
    """One chat completion, or one of its choices."""

    ID, PIECE, WHOLE = b"chatcmpl-", b"chat.completion.chunk", b"chat.completion"
    OPEN, CLOSE = b'"delta":{', b"}"

    __slots__ = ()

    def begin(self) -> bytes:
        """Whose turn it is."""
        return b"id: 0\n" + self._prefix + b'"role":"assistant","content":""' + self._plain

    def said(self, said: Said, reading: Reading) -> bytes:
        """Events for what a chunk said; empty when it said nothing yet. Logprobs go with the first of them."""
        tail = self._plain
        if reading.logprobs:
            tail = b'},"logprobs":' + logprobs_json(reading.logprobs, self._dialect) + self._suffix
        elif not (said.reasoning or said.calls or said.parts or reading.done):  # by far the commonest
            if not said.content:
                return b""
            return b'id: %d\n%b"content":%b%b' % (reading.tokens, self._prefix, _json(said.content), tail)
        events, order = b"", self._order
        calls = said.parts if order.live else said.calls
        shows = said.content or (reading.logprobs and not said.reasoning and not calls)
        if said.reasoning:
            more = "r" if shows or calls else ""
            events = id_line(reading, more) + self._prefix + b'"reasoning_content":' + _json(said.reasoning) + tail
            tail = self._plain
        if shows:
            mark = id_line(reading, "c" if calls else "")
            events += mark + self._prefix + b'"content":' + _json(said.content) + tail
            tail = self._plain
        if calls:
            delta = (
                _parts_delta(said, order) if order.live else _calls_delta(said, order, reading.calls - len(said.calls))
            )
            events += id_line(reading) + self._prefix + b'"tool_calls":' + delta + tail
        return events

    def choice(self, reading: Reading, said: Said, logprobs: bytes | None) -> bytes:
        """This choice, as a whole."""
        order = self._order
        content = b"null" if said.calls and not said.content else _json(said.content)
        reasoning = b',"reasoning_content":' + _json(said.reasoning) if said.reasoning else b""
        calls = b',"tool_calls":' + _calls_json(said, order) if said.calls else b""
        return (b'{"index":%d,"message":{"role":"assistant","content":%b%b%b},"logprobs":%b,"finish_reason":"%b"}') % (
            order.index,
            content,
            reasoning,
            calls,
            logprobs or b"null",
            reading.finish_word(),
        )
