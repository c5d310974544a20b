"""The request as OpenAI's responses clients write it, typed, and its translation into the chat request.

Nothing is stored: what would need a store (an earlier response, a conversation, work in the background) is refused by name, and
so are tools that would run here. Of the rest, what only concerns OpenAI's own service is left alone.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from holdfast.domain.fault import BadRequest
from holdfast.gateway.needs import ModelCard, Needs
from holdfast.gateway.openai_wire import (
    USER_BYTES_MAX,
    Ask,
    CallSaid,
    Count,
    Effort,
    FunctionOffered,
    FunctionSaid,
    ResponseFormat,
    SchemaSaid,
    ToolName,
    ToolOffered,
    Turn,
    checked,
    read,
)
from holdfast.gateway.prompting import prompts_of
from holdfast.gateway.surface import Prompt

Name = Annotated[str, Meta(max_length=USER_BYTES_MAX)]
LOGPROBS = "message.output_text.logprobs"
TEXTS = ("input_text", "output_text", "text", "reasoning_text", "summary_text")
OURS = {"messages": "input", "response_format.json_schema": "text.format", "response_format": "text.format"}
STORED = {
    "background": "background is not offered: an answer is given while you wait; leave it out.",
    "conversation": "conversation is not offered: nothing is stored here; send all of it as input.",
    "previous_response_id": "previous_response_id is not offered: nothing is stored here; send the earlier items as input.",
    "prompt": "prompt is not offered: no templates are stored here; send instructions and input.",
}


class Piece(Struct):
    """A part of an item's content."""

    type: str
    text: str | None = None
    refusal: str | None = None


class Item(Struct):
    """One entry of `input`; which fields it has goes by its type."""

    type: str = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[Piece] | None = None
    summary: list[Piece] | None = None
    call_id: str | None = None
    name: ToolName | None = None
    arguments: str | None = None
    output: str | list[Piece] | None = None


class ToolSaid(Struct):
    type: str = "function"
    name: ToolName | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ChoiceSaid(Struct):
    """`tool_choice`, where it is more than a word."""

    type: str
    name: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[ToolSaid] | None = None


class FormatSaid(Struct):
    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str = ""
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class TextSaid(Struct):
    format: FormatSaid | None = None


class ReasoningSaid(Struct):
    effort: Effort | None = None


class Body(Struct, kw_only=True):
    """The body of POST /v1/responses, as far as it is understood here."""

    model: str
    input: str | Annotated[list[Item], Meta(min_length=1)]
    instructions: str | None = None
    tools: list[ToolSaid] | None = None
    tool_choice: str | ChoiceSaid | None = None
    parallel_tool_calls: bool | None = None
    text: TextSaid | None = None
    reasoning: ReasoningSaid | None = None
    max_output_tokens: Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    include: list[str] | None = None
    stream: bool | None = None
    seed: int | None = None
    metadata: Annotated[dict[str, str], Meta(max_length=16)] | None = None
    user: Name | None = None
    prompt_cache_key: Name | None = None
    # refused; see STORED
    background: bool | None = None
    conversation: None = None
    previous_response_id: None = None
    prompt: None = None


class ResponsesAsk(Ask):
    """The chat request, with what the answer repeats of it: members of a JSON object, each with its comma."""

    echo: bytes = b""


_BODY = msgspec.json.Decoder(Body)


def decode(body: bytes) -> Ask:
    """The body as a chat request.

    Raises:
        BadRequest: not JSON, a field of the wrong type or out of range, or a feature that is not offered.
    """
    said = read(_BODY, body, STORED)
    if said.background:
        raise BadRequest(STORED["background"], "background")
    first = [Turn("system", said.instructions)] if said.instructions else []
    turns = [Turn("user", said.input)] if isinstance(said.input, str) else turns_of(said.input)
    with_rows = LOGPROBS in (said.include or ())
    tools, choice = _tools(said)
    ask = ResponsesAsk(
        model=said.model,
        messages=first + turns,
        stream=said.stream,
        max_tokens=said.max_output_tokens,
        temperature=said.temperature,
        top_p=said.top_p,
        logprobs=with_rows,
        top_logprobs=said.top_logprobs if with_rows else None,
        seed=said.seed,
        reasoning_effort=said.reasoning.effort if said.reasoning else None,
        response_format=_format(said),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=said.parallel_tool_calls,
        user=said.user,
        prompt_cache_key=said.prompt_cache_key,
        echo=_echo(said),
    )
    return checked(ask)


def prompts(ask: Ask, needs: Needs, card: ModelCard) -> list[Prompt]:
    """What is asked.

    Raises:
        BadRequest: it can't be, in the words of this API.
    """
    try:
        return prompts_of(ask, needs, card)
    except BadRequest as fault:
        param = fault.param or ""
        for theirs, ours in OURS.items():
            param = param.replace(theirs, ours)
        raise BadRequest(
            fault.why.replace("response_format", OURS["response_format"]), param or None, fault.code
        ) from None


def keep(ask: Ask) -> bytes:
    """What the writer repeats."""
    return ask.echo if isinstance(ask, ResponsesAsk) else b""


def turns_of(items: list[Item]) -> list[Turn]:
    """The items as turns: what an assistant thought, said and called in a row is one turn."""
    turns: list[Turn] = []
    open_turn: Turn | None = None
    for i, item in enumerate(items):
        where = f"input[{i}]"
        if item.type == "message" and item.role != "assistant":
            if item.role is None or item.content is None:
                raise BadRequest(f"{where} is a message; it needs a role and content.", where)
            turns.append(Turn(item.role, _text(item.content, f"{where}.content")))
            open_turn = None
        elif item.type == "function_call_output":
            if not item.call_id or item.output is None:
                raise BadRequest(f"{where} is a function_call_output; it needs a call_id and an output.", where)
            turns.append(Turn("tool", _text(item.output, f"{where}.output"), tool_call_id=item.call_id))
            open_turn = None
        elif item.type in ("message", "reasoning", "function_call"):
            if open_turn is None or not _fits(item, open_turn):
                open_turn = Turn("assistant", "")
                turns.append(open_turn)
            _add(item, open_turn, where)
        else:
            why = f"{where} is of type {item.type!r}; send messages, reasoning, function_call and function_call_output."
            raise BadRequest(why, f"{where}.type")
    return turns


def _fits(item: Item, turn: Turn) -> bool:
    """Whether it may come after what the assistant's turn has: thoughts, then words, then calls."""
    if item.type == "function_call":
        return True
    return not turn.tool_calls and not turn.content and (item.type == "message" or not turn.reasoning_content)


def _add(item: Item, turn: Turn, where: str) -> None:
    if item.type == "message":
        turn.content = _text(item.content or "", f"{where}.content")
    elif item.type == "reasoning":
        turn.reasoning_content = _text(item.content or item.summary or "", f"{where}.content") or None
    elif not item.name or not item.call_id:
        raise BadRequest(f"{where} is a function_call; it needs a name, a call_id and arguments.", where)
    else:
        call = CallSaid(FunctionSaid(item.name, item.arguments or ""), item.call_id)
        turn.tool_calls = [*(turn.tool_calls or ()), call]


def _text(content: str | list[Piece], where: str) -> str:
    """The text parts, a newline between."""
    if isinstance(content, str):
        return content
    texts = []
    for i, piece in enumerate(content):
        text = piece.refusal if piece.type == "refusal" else piece.text if piece.type in TEXTS else None
        if text is None:
            raise BadRequest(
                f"{where}[{i}] is of type {piece.type!r}; this model reads text parts only.", f"{where}[{i}]"
            )
        texts.append(text)
    return "\n".join(texts)


def _tools(said: Body) -> tuple[list[ToolOffered] | None, str | dict[str, Any] | None]:
    """The tools that may be called, and tool_choice as a chat request has it."""
    tools = []
    for i, tool in enumerate(said.tools or ()):
        if tool.type != "function":
            why = f"tools[{i}] is of type {tool.type!r}, and nothing runs here; offer a function, and run it yourself."
            raise BadRequest(why, f"tools[{i}].type")
        if tool.name is None:
            raise BadRequest(f"tools[{i}].name is required; send it.", f"tools[{i}].name")
        tools.append(ToolOffered(FunctionOffered(tool.name, tool.description, tool.parameters, tool.strict)))
    choice = said.tool_choice
    if not isinstance(choice, ChoiceSaid):
        return tools or None, choice
    if choice.type == "function":
        return tools or None, {"type": "function", "function": {"name": choice.name}}
    if choice.type == "allowed_tools":
        rows = [{"type": "function", "function": {"name": one.name}} for one in choice.tools or ()]
        return tools or None, {"type": choice.type, "allowed_tools": {"mode": choice.mode or "auto", "tools": rows}}
    why = f"tool_choice of type {choice.type!r} is not offered; send auto, none, required, a function or allowed_tools."
    raise BadRequest(why, "tool_choice.type")


def _format(said: Body) -> ResponseFormat | None:
    form = said.text.format if said.text else None
    if form is None:
        return None
    if form.type == "json_schema" and form.schema is None:
        raise BadRequest("text.format.schema is required with json_schema; send it.", "text.format.schema")
    schema = SchemaSaid(form.name, form.schema, form.strict) if form.type == "json_schema" else None
    return ResponseFormat(form.type, schema)


def _echo(said: Body) -> bytes:
    """What the Response repeats of the request, as it was understood."""
    tools = [
        {
            "type": "function",
            "name": t.name,
            "description": t.description,
            "parameters": t.parameters,
            "strict": t.strict,
        }
        for t in said.tools or ()
    ]
    form: dict[str, Any] = {"type": "text"}
    if said.text and said.text.format:
        form = {"type": said.text.format.type}
        if form["type"] == "json_schema":
            form |= {
                "name": said.text.format.name,
                "schema": said.text.format.schema,
                "strict": said.text.format.strict,
            }
    choice = said.tool_choice
    if isinstance(choice, ChoiceSaid):
        choice_said: Any = {name: one for name, one in msgspec.structs.asdict(choice).items() if one is not None}
    else:
        choice_said = choice or "auto"
    repeated = {
        "max_output_tokens": said.max_output_tokens,
        "metadata": said.metadata or {},
        "parallel_tool_calls": said.parallel_tool_calls is not False,
        "reasoning": {"effort": said.reasoning.effort if said.reasoning else None, "summary": None},
        "temperature": 1.0 if said.temperature is None else said.temperature,
        "text": {"format": form},
        "tool_choice": choice_said,
        "tools": tools,
        "top_logprobs": said.top_logprobs or 0,
        "top_p": 1.0 if said.top_p is None else said.top_p,
    }
    return msgspec.json.encode(repeated)[1:-1] + b","
