"""The request as OpenAI's and DeepSeek's clients write it, typed. Fields that are wrong are named.

What becomes of fields that are not served is in gateway/openai_fields.py. Those that are refused stand in the struct with a type
that only their harmless value has, so that looking for them costs nothing.
"""

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from holdfast.domain.fault import BadRequest
from holdfast.gateway.openai_fields import REFUSED

Penalty = Annotated[float, Meta(ge=-2, le=2)]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
ToolName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra"]
STOPS_MAX = 16
STOP_CHARS_MAX = 1024
CHOICES_MAX = 8
USER_BYTES_MAX = 512
_PATH = re.compile(r" - at `\$\.?(.*)`$")
T = TypeVar("T")


class Part(Struct):
    """A piece of a message's content."""

    type: str
    text: str | None = None
    refusal: str | None = None


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
    reasoning_content: str | None = None


class FunctionOffered(Struct):
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolOffered(Struct):
    function: FunctionOffered
    type: str = "function"


class StreamOptions(Struct):
    include_usage: bool | None = None


class Thinking(Struct):
    type: Literal["enabled", "disabled", "auto"] = "enabled"


class SchemaSaid(Struct):
    """`response_format.json_schema`."""

    name: str = ""
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class ResponseFormat(Struct):
    type: str = "text"
    json_schema: SchemaSaid | None = None


class Wanted(Struct, kw_only=True):
    """What every body that asks for an answer may hold."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    n: Annotated[int, Meta(ge=1, le=CHOICES_MAX)] | None = None
    ignore_eos: bool | None = None
    user: str | None = None
    user_id: str | None = None
    prompt_cache_key: str | None = None
    # not served; see openai_fields.REFUSED
    guided_choice: None = None
    guided_grammar: None = None
    guided_json: None = None
    guided_regex: None = None
    repetition_penalty: Annotated[float, Meta(ge=1, le=1)] | None = None
    structured_outputs: None = None


class Ask(Wanted, kw_only=True):
    """The body of POST /v1/chat/completions, as far as it is understood here."""

    messages: Annotated[list[Turn], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    thinking: Thinking | None = None
    reasoning_effort: Effort | None = None
    response_format: ResponseFormat | None = None
    tools: list[ToolOffered] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    tool_stream: Literal["buffered", "live"] | None = None
    # not served
    audio: None = None
    chat_template: None = None
    chat_template_kwargs: None = None
    function_call: None = None
    functions: None = None
    modalities: list[Literal["text"]] | None = None
    web_search_options: None = None


_DECODER = msgspec.json.Decoder(Ask)


def decode(body: bytes) -> Ask:
    """The body as an Ask, checked for everything that the body alone can tell.

    Raises:
        BadRequest: not JSON, a field of the wrong type or out of range, or a feature that is not offered.
    """
    return checked(read(_DECODER, body, REFUSED))


def read(decoder: "msgspec.json.Decoder[T]", body: bytes, listed: dict[str, str]) -> T:
    """A body by its decoder. `listed`: what is said of fields that are refused.

    Raises:
        BadRequest: it is not JSON, or not what the decoder wants.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _named(error, listed) from error
    except UnicodeDecodeError as error:
        raise BadRequest(f"The body is not UTF-8: {error.reason}.", code="invalid_json") from error
    except msgspec.DecodeError as error:
        raise BadRequest(f"The body is not JSON: {error}.", code="invalid_json") from error


def checked(ask: Ask) -> Ask:
    """The same, when what it says fits together. Raises BadRequest."""
    stop = ask.stop
    if stop:
        stops = stop if isinstance(stop, list) else [stop]
        if len(stops) > STOPS_MAX:
            raise BadRequest(f"stop holds {len(stops)} strings; send at most {STOPS_MAX}.", "stop")
        if max(map(len, stops)) > STOP_CHARS_MAX:
            raise BadRequest(
                f"stop holds a string of more than {STOP_CHARS_MAX} characters; send shorter ones.", "stop"
            )
    if ask.top_logprobs is not None and not ask.logprobs:
        raise BadRequest("top_logprobs needs logprobs; send logprobs=true with it.", "top_logprobs")
    if ask.user_id or ask.user or ask.prompt_cache_key:
        _user(ask)
    return ask


def _user(ask: Ask) -> None:
    for name, said in (("user_id", ask.user_id), ("user", ask.user), ("prompt_cache_key", ask.prompt_cache_key)):
        if said is not None and len(said.encode("utf-8", "replace")) > USER_BYTES_MAX:
            raise BadRequest(f"{name} is longer than {USER_BYTES_MAX} bytes; send a shorter one.", name)


def _named(error: msgspec.ValidationError, listed: dict[str, str]) -> BadRequest:
    """msgspec's sentence with the field in front, or the fix from the list of what is refused."""
    words = str(error)
    at = _PATH.search(words)
    if at is not None:
        where, words = at[1], words[: at.start()]
        return BadRequest(listed.get(where.partition("[")[0]) or f"{where}: {words}.", where)
    missing = re.search(r"missing required field `(\w+)`", words)
    if missing is not None:
        return BadRequest(f"{missing[1]} is required; send it.", missing[1])
    return BadRequest(f"{words}.")
