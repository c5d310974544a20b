"""An answer as Anthropic's Message: the object, the events of its stream, and error pages.

A thinking block's signature is the answer's name: nothing is sealed, and what a client sends back is not checked against it.
"""

from typing import Any

import msgspec

from holdfast.domain.dialect import Dialect, Said
from holdfast.domain.request import Finish
from holdfast.gateway.numbered import Block, Numbered
from holdfast.gateway.order import Order
from holdfast.gateway.reading import Reading
from holdfast.gateway.refusals import Refusal

_json = msgspec.json.Encoder().encode
INVALID = "INVALID_JSON"  # the key under which a call's arguments stand that are no JSON object
TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def refuse(said: Refusal) -> Refusal:
    """The same error page in Anthropic's shape; `code`, `param` and `limit` stay for those who look for them."""
    ours: dict[str, Any] = msgspec.json.decode(said.body)["error"]
    error = {**ours, "type": TYPES.get(said.status, "invalid_request_error"), "message": said.why}
    body = _json({"type": "error", "error": error, "request_id": None})
    return Refusal(said.status, said.headers, body, said.code, said.why)


def input_of(arguments: str) -> Any:
    """A call's arguments as the object that `input` must be."""
    try:
        found = msgspec.json.decode(arguments or "{}")
    except msgspec.DecodeError:
        found = None
    return found if isinstance(found, dict) else {INVALID: arguments}


def tool_use_id(order: Order, number: int) -> str:
    """A call's name towards the client."""
    return f"toolu_{number}_{order.generation.id}"


def stop_of(reading: Reading) -> tuple[str, str | None]:
    """stop_reason and stop_sequence."""
    if reading.stop:
        return "stop_sequence", reading.stop
    if reading.finish is Finish.LENGTH:
        return "max_tokens", None
    return ("tool_use" if reading.calls else "end_turn"), None


def usage_of(order: Order, reading: Reading | None) -> dict[str, Any]:
    """Usage. What the engine found in its cache is counted apart; before the answer nobody knows how much that is."""
    prompt, cached = len(order.generation.prompt_ids), reading.cached if reading else 0
    usage: dict[str, Any] = {
        "input_tokens": prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": reading.tokens if reading else 0,
    }
    if reading:
        usage["output_tokens_details"] = {"thinking_tokens": reading.parser.reasoning_tokens}
    return usage


def message_json(order: Order, content: list[Any], reading: Reading | None) -> bytes:
    """A Message; without a `reading` one that begins."""
    reason, sequence = stop_of(reading) if reading else (None, None)
    return _json(
        {
            "id": f"msg_{order.generation.id}",
            "type": "message",
            "role": "assistant",
            "model": order.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": sequence,
            "usage": usage_of(order, reading),
        }
    )


class AnthropicWriter(Numbered):
    """One Message, as events or whole."""

    def __init__(self, order: Order, _: Dialect) -> None:
        super().__init__()
        self._order = order

    def begin(self) -> bytes:
        """The message without content."""
        start = self._event(b"message_start", b',"message":' + message_json(self._order, [], None))
        return start + self._event(b"ping")

    def opened(self) -> bytes:
        """A content block, still empty."""
        block: dict[str, Any] = {"type": "text", "text": ""}
        if self.block is Block.REASONING:
            block = {"type": "thinking", "thinking": "", "signature": ""}
        elif self.block is Block.CALL:
            name = tool_use_id(self._order, self.calls - 1)
            block = {"type": "tool_use", "id": name, "name": self.name, "input": {}}
        return self._event(b"content_block_start", b',"index":%d,"content_block":%b' % (self.index, _json(block)))

    def grown(self, text: str, reading: Reading) -> bytes:
        """A delta."""
        if self.had:
            return self.event(b"", b"")
        if self.block is Block.TEXT:
            return self._delta(b'{"type":"text_delta","text":%b}' % _json(text))
        if self.block is Block.REASONING:
            return self._delta(b'{"type":"thinking_delta","thinking":%b}' % _json(text))
        return self._delta(b'{"type":"input_json_delta","partial_json":%b}' % _json(text))

    def closed(self, whole: bool) -> bytes:
        """The block stops; reasoning is signed before."""
        out = b""
        if self.block is Block.REASONING:
            out = self._delta(b'{"type":"signature_delta","signature":%b}' % _json(self._order.generation.id))
        return out + self._event(b"content_block_stop", b',"index":%d' % self.index)

    def last(self, reading: Reading, given: str = "") -> bytes:
        """What is open stops; why the message ended, its usage, and the end."""
        out = self.end(reading.finish is not Finish.LENGTH)
        reason, sequence = stop_of(reading)
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        usage = _json(usage_of(self._order, reading))
        out += self._event(b"message_delta", b',"delta":%b,"usage":%b' % (_json(delta), usage))
        end = self._event(b"message_stop")
        return out + (b": holdfast moves=%d\n" % reading.moves + end if end else b"")

    def cut(self, said: Refusal) -> bytes:
        """The error as an event, for which Anthropic's clients raise it."""
        return b"event: error\ndata: " + said.body + b"\n\n"

    def whole(self, reading: Reading, said: Said, logprobs: bytes | None) -> bytes:
        """A Message."""
        order, content = self._order, []
        if said.reasoning:
            content.append({"type": "thinking", "thinking": said.reasoning, "signature": order.generation.id})
        if said.content:
            content.append({"type": "text", "text": said.content})
        for i, call in enumerate(said.calls):
            name, arguments = tool_use_id(order, i), input_of(call.arguments)
            content.append({"type": "tool_use", "id": name, "name": call.name, "input": arguments})
        return message_json(order, content, reading)

    def _event(self, name: bytes, data: bytes = b"") -> bytes:
        return self.event(name, b'{"type":"%b"%b}' % (name, data))

    def _delta(self, delta: bytes) -> bytes:
        return self._event(b"content_block_delta", b',"index":%d,"delta":%b' % (self.index, delta))
