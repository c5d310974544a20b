"""The messages of a request as the dialect wants them."""

import json

from holdfast.domain.dialect import Message, ToolCall
from holdfast.domain.fault import BadRequest
from holdfast.gateway.openai_wire import Ask, CallSaid, Part, Turn

NEEDS_TEXT = ("user", "system", "developer")


def turns(ask: Ask) -> list[Message]:
    """The messages: text parts joined by a newline.

    Raises:
        BadRequest: a part that is not text; a turn without anything to say; a prefix where none can be.
    """
    messages = []
    for i, turn in enumerate(ask.messages):
        content = turn.content
        if content is None:
            content = ""
            if turn.role in NEEDS_TEXT:
                raise BadRequest(
                    f"messages[{i}].content is empty; a {turn.role} message needs text.", f"messages[{i}].content"
                )
        elif not isinstance(content, str):
            content = _joined(content, i)
        if turn.role == "user":  # by far the commonest
            messages.append(Message("user", content))
        else:
            messages.append(_message(turn, content))
        if turn.prefix:
            _check_prefix(ask, i)
    return messages


def _message(turn: Turn, content: str) -> Message:
    role = "tool" if turn.role == "function" else turn.role
    calls = tuple(map(_call, turn.tool_calls)) if turn.tool_calls else ()
    call_id, reasoning = turn.tool_call_id or "", turn.reasoning_content or ""
    return Message(role, content, calls, call_id, bool(turn.prefix), reasoning)


def _call(call: CallSaid) -> ToolCall:
    said = call.function.arguments
    arguments = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
    return ToolCall(call.function.name, arguments, call.id)


def _check_prefix(ask: Ask, i: int) -> None:
    """A prefix is the beginning of the very answer that is asked for."""
    if ask.messages[i].role != "assistant" or i != len(ask.messages) - 1:
        where = f"messages[{i}].prefix"
        raise BadRequest(f"{where}: only a last message of role assistant can be continued; leave it out.", where)


def _joined(parts: list[Part], i: int) -> str:
    texts = []
    for j, part in enumerate(parts):
        text = part.text if part.type == "text" else part.refusal if part.type == "refusal" else None
        if text is None:
            where = f"messages[{i}].content[{j}]"
            raise BadRequest(f"{where} is of type {part.type!r}; this model reads text parts only.", where)
        texts.append(text)
    return "\n".join(texts)
