"""The request as Anthropic's clients write it, typed, and its translation into the chat request.

DeepSeek's own endpoint of this shape is the model for what is understood, and for what is left alone: `cache_control`, citations,
`is_error`, `container`, `mcp_servers`, `service_tier`, beta headers. What else would change the answer is refused by name.
"""

import json
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from holdfast.domain.fault import BadRequest
from holdfast.gateway.anthropic_events import INVALID
from holdfast.gateway.needs import ModelCard, Needs
from holdfast.gateway.openai_wire import (
    STOP_CHARS_MAX,
    STOPS_MAX,
    USER_BYTES_MAX,
    Ask,
    CallSaid,
    Count,
    Effort,
    FunctionOffered,
    FunctionSaid,
    ResponseFormat,
    SchemaSaid,
    Thinking,
    ToolName,
    ToolOffered,
    Turn,
    checked,
    read,
)
from holdfast.gateway.prompting import prompts_of
from holdfast.gateway.surface import Prompt

StopSaid = Annotated[str, Meta(min_length=1, max_length=STOP_CHARS_MAX)]
THEIRS = "claude"  # names of Anthropic's models, in programs that can't be told another one: the site's own answers


class Piece(Struct):
    """A text block, in a place where there may be nothing else."""

    type: str
    text: str | None = None


class BlockSaid(Struct):
    """A content block; which fields it has goes by its type."""

    type: str
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: ToolName | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | list[Piece] | None = None


class MessageSaid(Struct):
    role: Literal["user", "assistant", "system"]
    content: str | list[BlockSaid]


class ToolSaid(Struct):
    name: ToolName | None = None
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class ChoiceSaid(Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingSaid(Struct):
    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Count | None = None


class FormatSaid(Struct):
    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputSaid(Struct):
    effort: Effort | None = None
    format: FormatSaid | None = None


class MetadataSaid(Struct):
    user_id: Annotated[str, Meta(max_length=USER_BYTES_MAX)] | None = None


class CountBody(Struct, kw_only=True):
    """The body of POST /anthropic/v1/messages/count_tokens, as far as it is understood here."""

    model: str
    messages: Annotated[list[MessageSaid], Meta(min_length=1)]
    system: str | list[Piece] | None = None
    tools: list[ToolSaid] | None = None
    tool_choice: ChoiceSaid | None = None
    thinking: ThinkingSaid | None = None
    output_config: OutputSaid | None = None


class Body(CountBody, kw_only=True):
    """The body of POST /anthropic/v1/messages, as far as it is understood here."""

    max_tokens: Count
    stop_sequences: Annotated[list[StopSaid], Meta(max_length=STOPS_MAX)] | None = None
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    metadata: MetadataSaid | None = None
    seed: int | None = None


class AnthropicAsk(Ask):
    """The chat request, with a bound on how long the model may think; 0: none."""

    budget_tokens: int = 0


_BODY = msgspec.json.Decoder(Body)
_COUNT = msgspec.json.Decoder(CountBody)


def decode(body: bytes) -> Ask:
    """The body as a chat request.

    Raises:
        BadRequest: not JSON, a field of the wrong type or out of range, or a feature that is not offered.
    """
    said = read(_BODY, body, {})
    ask = translated(said)
    ask.max_tokens, ask.stream, ask.stop, ask.seed = said.max_tokens, said.stream, said.stop_sequences, said.seed
    ask.temperature, ask.top_p, ask.top_k = said.temperature, said.top_p, said.top_k
    ask.user_id = said.metadata.user_id if said.metadata else None
    return checked(ask)


def decode_count(body: bytes) -> Ask:
    """The same for a request that only wants its tokens counted. Raises BadRequest."""
    return checked(translated(read(_COUNT, body, {})))


def prompts(ask: Ask, needs: Needs, card: ModelCard) -> list[Prompt]:
    """What is asked. Raises BadRequest."""
    if ask.model.startswith(THEIRS) and ask.model not in dict(card.aliases):
        ask.model = card.name
    found = prompts_of(ask, needs, card)
    for prompt in found:
        prompt.thinking_max = ask.budget_tokens if isinstance(ask, AnthropicAsk) else 0
    return found


def translated(said: CountBody) -> AnthropicAsk:
    """What makes the prompt, as a chat request."""
    turns: list[Turn] = []
    if said.system:
        turns.append(Turn("system", said.system if isinstance(said.system, str) else _texts(said.system, "system")))
    for i, message in enumerate(said.messages):
        where = f"messages[{i}].content"
        if isinstance(message.content, str):
            turns.append(Turn(message.role, message.content))
        elif message.role == "assistant":
            turns.append(_assistant(message.content, where))
        else:
            turns += _asking(message.role, message.content, where)
    last = turns[-1] if turns else None
    if last is not None and last.role == "assistant" and not last.tool_calls:
        last.prefix = True  # to be gone on with
    thinking, config, choice = said.thinking, said.output_config, said.tool_choice
    on = thinking is not None and thinking.type in ("enabled", "adaptive")
    ask = AnthropicAsk(model=said.model, messages=turns, tools=_tools(said))
    if thinking is not None and thinking.type != "between_tools":
        ask.thinking = Thinking("enabled" if on else "disabled")
    if on and thinking is not None:
        ask.budget_tokens = thinking.budget_tokens or 0
        ask.reasoning_effort = config.effort if config is not None else None
    if config is not None and config.format is not None:
        ask.response_format = ResponseFormat("json_schema", SchemaSaid("output", config.format.schema, True))
    if choice is not None:
        named = {"type": "function", "function": {"name": choice.name}}
        ask.tool_choice = named if choice.type == "tool" else "required" if choice.type == "any" else choice.type
        ask.parallel_tool_calls = not choice.disable_parallel_tool_use
    return ask


def _assistant(blocks: list[BlockSaid], where: str) -> Turn:
    turn, thoughts, texts, calls = Turn("assistant", ""), "", "", []
    for i, block in enumerate(blocks):
        if block.type == "text":
            texts += block.text or ""
        elif block.type == "thinking":
            thoughts += block.thinking or ""
        elif block.type == "tool_use" and block.name and block.id:
            calls.append(CallSaid(FunctionSaid(block.name, arguments_of(block.input or {})), block.id))
        elif block.type == "tool_use":
            raise BadRequest(f"{where}[{i}] is a tool_use; it needs an id, a name and an input.", f"{where}[{i}]")
        else:
            raise _foreign(block.type, f"{where}[{i}]", "text, thinking and tool_use")
    turn.content, turn.reasoning_content, turn.tool_calls = texts, thoughts or None, calls or None
    return turn


def _asking(role: Literal["user", "system"], blocks: list[BlockSaid], where: str) -> list[Turn]:
    """A user's message: each tool's result is a turn of its own, and so is the text before or after."""
    turns: list[Turn] = []
    texts: list[str] = []
    for i, block in enumerate(blocks):
        if block.type == "text" and block.text is not None:
            texts.append(block.text)
            continue
        if block.type != "tool_result" or role != "user":
            raise _foreign(block.type, f"{where}[{i}]", "text and tool_result" if role == "user" else "text")
        if not block.tool_use_id:
            raise BadRequest(f"{where}[{i}] is a tool_result; it needs a tool_use_id.", f"{where}[{i}].tool_use_id")
        if texts:
            turns.append(Turn(role, "\n".join(texts)))
            texts = []
        content = block.content or ""
        text = content if isinstance(content, str) else _texts(content, f"{where}[{i}].content")
        turns.append(Turn("tool", text, tool_call_id=block.tool_use_id))
    if texts or not turns:
        turns.append(Turn(role, "\n".join(texts)))
    return turns


def _texts(pieces: list[Piece], where: str) -> str:
    for i, piece in enumerate(pieces):
        if piece.type != "text" or piece.text is None:
            raise _foreign(piece.type, f"{where}[{i}]", "text")
    return "\n".join(piece.text or "" for piece in pieces)


def _foreign(kind: str, where: str, known: str) -> BadRequest:
    return BadRequest(f"{where} is of type {kind!r}; this model reads {known} here.", where)


def arguments_of(given: dict[str, Any]) -> str:
    """A call's arguments, as the model wrote them or would have."""
    if list(given) == [INVALID] and isinstance(given[INVALID], str):
        return str(given[INVALID])
    return json.dumps(given, ensure_ascii=False)


def _tools(said: CountBody) -> list[ToolOffered] | None:
    tools = []
    for i, tool in enumerate(said.tools or ()):
        if tool.type not in (None, "custom"):
            why = f"tools[{i}] is of type {tool.type!r}, and nothing runs here; offer a tool of your own, and run it yourself."
            raise BadRequest(why, f"tools[{i}].type")
        if tool.name is None:
            raise BadRequest(f"tools[{i}].name is required; send it.", f"tools[{i}].name")
        tools.append(ToolOffered(FunctionOffered(tool.name, tool.description, tool.input_schema, tool.strict)))
    return tools or None
