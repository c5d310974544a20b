"""The request as OpenAI's and DeepSeek's clients write it, typed. Unknown fields are ignored; wrong ones are named."""

import json
import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from holdfast.domain.dialect import Message, Tool, ToolCall
from holdfast.domain.fault import BadRequest

Penalty = Annotated[float, Meta(ge=-2, le=2)]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
STOP_CHARS_MAX = 1024
_PATH = re.compile(r" - at `\$\.?(.*)`$")


class Part(Struct):
    type: str
    text: str | None = None


class FunctionSaid(Struct):
    name: str
    arguments: str | dict[str, Any] = ""


class CallSaid(Struct):
    function: FunctionSaid
    id: str = ""


class Turn(Struct):
    """One entry of `messages`."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    tool_calls: list[CallSaid] | None = None
    tool_call_id: str | None = None
    prefix: bool | None = None


class FunctionOffered(Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolOffered(Struct):
    function: FunctionOffered
    type: str = "function"


class StreamOptions(Struct):
    include_usage: bool | None = None


class Thinking(Struct):
    type: Literal["enabled", "disabled", "auto"] = "enabled"


class ResponseFormat(Struct):
    type: str = "text"


class Ask(Struct):
    """The body of POST /v1/chat/completions, as far as it is understood here."""

    model: str
    messages: Annotated[list[Turn], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    thinking: Thinking | None = None
    reasoning_effort: str | None = None
    response_format: ResponseFormat | None = None
    tools: list[ToolOffered] | None = None
    tool_choice: str | dict[str, Any] | None = None
    ignore_eos: bool | None = None


_DECODER = msgspec.json.Decoder(Ask)


def decode(body: bytes) -> Ask:
    """The body as an Ask, checked for everything that the body alone can tell.

    Raises:
        BadRequest: not JSON, a field of the wrong type or out of range, or a feature that is not offered.
    """
    try:
        ask = _DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise _named(error) from error
    except UnicodeDecodeError as error:
        raise BadRequest(f"The body is not UTF-8: {error.reason}.", code="invalid_json") from error
    except msgspec.DecodeError as error:
        raise BadRequest(f"The body is not JSON: {error}.", code="invalid_json") from error
    if ask.n is not None and ask.n != 1:
        raise BadRequest(f"n is {ask.n}, but one answer a request is all there is; send n=1 or leave it out.", "n")
    stops = ask.stop if isinstance(ask.stop, list) else [ask.stop or ""]
    if len(stops) > 16:
        raise BadRequest(f"stop holds {len(stops)} strings; send at most 16.", "stop")
    if max(map(len, stops), default=0) > STOP_CHARS_MAX:
        raise BadRequest(f"stop holds a string of more than {STOP_CHARS_MAX} characters; send shorter ones.", "stop")
    if ask.top_logprobs is not None and not ask.logprobs:
        raise BadRequest("top_logprobs needs logprobs; send logprobs=true with it.", "top_logprobs")
    form = ask.response_format
    if form is not None and form.type not in ("text", "json_object"):
        raise BadRequest(
            f"response_format {form.type!r} is not offered; send text or json_object.", "response_format.type"
        )
    return ask


def _named(error: msgspec.ValidationError) -> BadRequest:
    """msgspec's sentence with the field in front."""
    words = str(error)
    at = _PATH.search(words)
    if at is not None:
        where, words = at[1], words[: at.start()]
        return BadRequest(f"{where}: {words}.", where)
    missing = re.search(r"missing required field `(\w+)`", words)
    if missing is not None:
        return BadRequest(f"{missing[1]} is required; send it.", missing[1])
    return BadRequest(f"{words}.")


def turns(ask: Ask) -> list[Message]:
    """The messages as the dialect wants them: text parts joined by a newline.

    Raises:
        BadRequest: a part that is not text; a turn without anything to say.
    """
    messages = []
    for i, turn in enumerate(ask.messages):
        content = turn.content
        if content is None:
            content = ""
            if turn.role in ("user", "system", "developer"):
                raise BadRequest(
                    f"messages[{i}].content is empty; a {turn.role} message needs text.", f"messages[{i}].content"
                )
        elif not isinstance(content, str):
            content = _joined(content, i)
        calls = tuple(
            ToolCall(
                call.function.name,
                call.function.arguments
                if isinstance(call.function.arguments, str)
                else json.dumps(call.function.arguments, ensure_ascii=False),
                call.id,
            )
            for call in turn.tool_calls or ()
        )
        role = "tool" if turn.role == "function" else turn.role
        messages.append(Message(role, content, calls, turn.tool_call_id or "", bool(turn.prefix)))
    return messages


def _joined(parts: list[Part], i: int) -> str:
    texts = []
    for j, part in enumerate(parts):
        if part.type != "text" or part.text is None:
            where = f"messages[{i}].content[{j}]"
            raise BadRequest(f"{where} is of type {part.type!r}; this model reads text parts only.", where)
        texts.append(part.text)
    return "\n".join(texts)


def offered(ask: Ask) -> list[Tool]:
    """The tools that the model may call; none with tool_choice none.

    Raises:
        BadRequest: a tool_choice that would force a call, or a tool that is not a function.
    """
    if not ask.tools or ask.tool_choice == "none":
        return []
    if ask.tool_choice is not None and ask.tool_choice != "auto":
        raise BadRequest("tool_choice can't force a call here; send auto or none.", "tool_choice")
    for i, tool in enumerate(ask.tools):
        if tool.type != "function":
            raise BadRequest(f"tools[{i}].type is {tool.type!r}; send function.", f"tools[{i}].type")
    return [Tool(t.function.name, t.function.description or "", t.function.parameters) for t in ask.tools]
