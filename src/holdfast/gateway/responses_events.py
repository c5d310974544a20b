"""An answer as OpenAI's Response: the object, and the events of its stream.

Reasoning is shown as it is, in `reasoning_text` parts, as DeepSeek does it: there is no summary and nothing is encrypted.
The object repeats what the request asked for (`Order.more`, made by gateway/responses_wire.py), but never the prompt.
"""

from typing import Any

import msgspec

from holdfast.domain.dialect import Dialect, Said
from holdfast.domain.request import Finish, TokenLogprob
from holdfast.gateway.numbered import Block, Numbered
from holdfast.gateway.order import Order
from holdfast.gateway.reading import Reading
from holdfast.gateway.refusals import Refusal
from holdfast.gateway.writing import logprobs_json

_json = msgspec.json.Encoder().encode
NO_ROWS = b"[]"
PREFIXES = {Block.REASONING: "rs", Block.TEXT: "msg", Block.CALL: "fc"}


def item_json(item_id: str, block: Block, text: str, status: str, more: Any = None) -> bytes:
    """An output item. `more`: a text's logprobs as JSON, a call's id and name."""
    item: dict[str, Any] = {"id": item_id, "status": status}
    if block is Block.REASONING:
        shown = [{"type": "reasoning_text", "text": text}] if text else []
        item |= {"type": "reasoning", "summary": [], "content": shown}
    elif block is Block.TEXT:
        item |= {"type": "message", "role": "assistant", "content": [] if more is None else [text_part(text, more)]}
    else:
        call_id, name = more
        item |= {"type": "function_call", "call_id": call_id, "name": name, "arguments": text}
    return _json(item)


def text_part(text: str, rows: bytes) -> dict[str, Any]:
    """The one part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": msgspec.Raw(rows)}


def call_id_of(order: Order, number: int) -> str:
    """A call's name towards the client, the same as in a chat completion."""
    return f"call_{number}_{order.generation.id}"


def usage_json(order: Order, reading: Reading) -> bytes:
    """Response.usage."""
    prompt, said = len(order.generation.prompt_ids), reading.tokens
    return (
        b'{"input_tokens":%d,"input_tokens_details":{"cached_tokens":%d,"cache_write_tokens":0},"output_tokens":%d,'
        b'"output_tokens_details":{"reasoning_tokens":%d},"total_tokens":%d}'
    ) % (prompt, reading.cached, said, reading.parser.reasoning_tokens, prompt + said)


def response_json(order: Order, status: str, output: list[bytes], usage: bytes = b"null", error: Any = None) -> bytes:
    """A Response."""
    why = b'{"reason":"max_output_tokens"}' if status == "incomplete" else b"null"
    return (
        b'{"id":"resp_%b","object":"response","created_at":%d,"status":"%b","background":false,"error":%b,'
        b'"incomplete_details":%b,"instructions":null,"max_tool_calls":null,"model":%b,"output":[%b],'
        b'"previous_response_id":null,"store":false,"truncation":"disabled","user":null,%b"usage":%b}'
    ) % (
        order.generation.id.encode(),
        order.created,
        status.encode(),
        _json(error),
        why,
        _json(order.model),
        b",".join(output),
        order.more,
        usage,
    )


class ResponsesWriter(Numbered):
    """One Response, as events or whole."""

    def __init__(self, order: Order, dialect: Dialect) -> None:
        super().__init__()
        self._order, self._dialect = order, dialect
        self._items: list[bytes] = []
        self._rows: list[TokenLogprob] = []  # of the open text
        self._waiting_rows: list[TokenLogprob] = []  # of tokens that have not become text yet
        self._thought = 0  # tokens of reasoning so far
        self._place = b""  # where the open item is

    def begin(self) -> bytes:
        """The Response as it stands."""
        as_it_stands = b'"response":' + response_json(self._order, "in_progress", [])
        return self._event(b"response.created", as_it_stands) + self._event(b"response.in_progress", as_it_stands)

    def said(self, said: Said, reading: Reading) -> bytes:
        """Events for what one token said."""
        if reading.logprobs is None:
            return super().said(said, reading)
        thought = reading.parser.reasoning_tokens
        if thought == self._thought:
            self._waiting_rows += reading.logprobs
        self._thought = thought
        out = super().said(said, reading)
        if said.calls or self.block is Block.CALL:
            self._waiting_rows = []
        return out

    def opened(self) -> bytes:
        """The item is added, and its part."""
        block = self._block()
        self._rows = []
        self._place = b'"item_id":"%b","output_index":%d' % (self._item_id().encode(), self.index)
        item = item_json(self._item_id(), block, "", "in_progress", self._call() if block is Block.CALL else None)
        out = self._event(b"response.output_item.added", b'"output_index":%d,"item":%b' % (self.index, item))
        if block is Block.CALL:
            return out
        part = b'{"type":"reasoning_text","text":""}' if block is Block.REASONING else _json(text_part("", NO_ROWS))
        return out + self._event(b"response.content_part.added", self._where() + b',"part":' + part)

    def grown(self, text: str, reading: Reading) -> bytes:
        """A delta."""
        block = self._block()
        if block is Block.TEXT and self._waiting_rows:
            rows, self._waiting_rows = self._waiting_rows, []
            self._rows += rows
        else:
            rows = []
        if self.had:
            return self._event(b"", b"")
        if block is Block.CALL:
            data = b'%b,"delta":%b' % (self._place, _json(text))
            return self._event(b"response.function_call_arguments.delta", data)
        data = b'%b,"delta":%b' % (self._where(), _json(text))
        if block is Block.REASONING:
            return self._event(b"response.reasoning_text.delta", data)
        return self._event(b"response.output_text.delta", data + b',"logprobs":' + self._rows_json(rows))

    def closed(self, whole: bool) -> bytes:
        """The part is done, and the item."""
        block, text = self._block(), self.text
        said, more = _json(text), self._call() if block is Block.CALL else self._rows_json(self._rows)
        item = item_json(self._item_id(), block, text, "completed" if whole else "incomplete", more)
        self._items.append(item)
        if block is Block.CALL:
            data = b'%b,"name":%b,"arguments":%b' % (self._place, _json(self.name), said)
            out = self._event(b"response.function_call_arguments.done", data)
        elif block is Block.REASONING:
            out = self._event(b"response.reasoning_text.done", b'%b,"text":%b' % (self._where(), said))
            part = b'{"type":"reasoning_text","text":%b}' % said
            out += self._event(b"response.content_part.done", self._where() + b',"part":' + part)
        else:
            rows = self._rows_json(self._rows)
            out = self._event(b"response.output_text.done", b'%b,"text":%b,"logprobs":%b' % (self._where(), said, rows))
            part = _json(text_part(text, rows))
            out += self._event(b"response.content_part.done", self._where() + b',"part":' + part)
        return out + self._event(b"response.output_item.done", b'"output_index":%d,"item":%b' % (self.index, item))

    def last(self, reading: Reading, given: str = "") -> bytes:
        """What is open is closed, and the whole Response."""
        status = status_of(reading)
        out = self.end(status == "completed")
        if not self._items:
            out += self._turn(Block.TEXT) + self.end(status == "completed")
        data = b'"response":' + response_json(self._order, status, self._items, usage_json(self._order, reading))
        end = self._event(b"response." + status.encode(), data)
        return out + (b": holdfast moves=%d\n" % reading.moves + end if end else b"")

    def cut(self, said: Refusal) -> bytes:
        """The Response as far as it came, failed. It has no id: it says nothing about the answer, which may go on elsewhere."""
        self.end(False)
        error = {"code": said.code, "message": said.why}
        body = response_json(self._order, "failed", self._items, error=error)
        head = b'event: response.failed\ndata: {"type":"response.failed","sequence_number":%d,' % self.number
        return head + b'"response":%b}\n\n' % body

    def whole(self, reading: Reading, said: Said, logprobs: bytes | None) -> bytes:
        """A Response."""
        order, items, status = self._order, [], status_of(reading)
        blocks: list[tuple[Block, str, Any]] = []
        if said.reasoning:
            blocks.append((Block.REASONING, said.reasoning, None))
        if said.content or not (said.reasoning or said.calls):
            blocks.append((Block.TEXT, said.content, rows_of_text(logprobs, reading, said.content)))
        for i, call in enumerate(said.calls):
            blocks.append((Block.CALL, call.arguments, (call_id_of(order, i), call.name)))
        for i, (block, text, more) in enumerate(blocks):
            so = status if i == len(blocks) - 1 else "completed"
            items.append(item_json(self._item_id(i, block), block, text, so, more))
        return response_json(order, status, items, usage_json(order, reading))

    def _event(self, name: bytes, data: bytes) -> bytes:
        return self.event(name, b'{"type":"%b","sequence_number":%d,%b}' % (name, self.number, data))

    def _block(self) -> Block:
        return self.block or Block.TEXT

    def _item_id(self, index: int = -1, block: Block | None = None) -> str:
        number = self.index if index < 0 else index
        return f"{PREFIXES[block or self._block()]}_{self._order.generation.id}_{number}"

    def _where(self) -> bytes:
        return self._place + b',"content_index":0'

    def _call(self) -> tuple[str, str]:
        return call_id_of(self._order, self.calls - 1), self.name

    def _rows_json(self, rows: list[TokenLogprob]) -> bytes:
        return in_list(logprobs_json(rows, self._dialect)) if rows else NO_ROWS


def status_of(reading: Reading) -> str:
    """completed, or incomplete for want of tokens."""
    return "incomplete" if reading.finish is Finish.LENGTH else "completed"


def in_list(logprobs: bytes) -> bytes:
    """The rows of a chat completion's logprobs object."""
    rows: bytes = bytes(msgspec.json.decode(logprobs, type=dict[str, msgspec.Raw])["content"])
    return rows


def rows_of_text(logprobs: bytes | None, reading: Reading, content: str) -> bytes:
    """Those of an answer's rows that are its content's: reasoning stands before, calls and the end behind."""
    if logprobs is None:
        return NO_ROWS
    kept, left = [], len(content.encode())
    for row in msgspec.json.decode(logprobs)["content"][reading.parser.reasoning_tokens :]:
        if left <= 0:
            break
        left -= len(row["bytes"])
        kept.append(row)
    return _json(kept)
