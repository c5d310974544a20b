"""The tools of a request, and what form its answer must have: `tools`, `tool_choice`, `parallel_tool_calls`, `response_format`.

A form is forced by a grammar (domain.dialect.Form), and so holds whatever the model would rather say. With tool_choice `auto` the
model decides whether it calls a tool; what it calls a `strict` one with is held to its parameters all the same.
"""

from typing import Any

from holdfast.domain.dialect import Form, Tool
from holdfast.domain.fault import BadRequest
from holdfast.gateway.openai_wire import Ask, ResponseFormat

ANY: dict[str, Any] = {"type": "object"}
CHOICES = "send auto, none, required, or one function by name"


def offered(ask: Ask) -> list[Tool]:
    """The tools that the model may call; none with tool_choice none.

    Raises:
        BadRequest: a tool that is not a function, or a tool_choice that can't be.
    """
    choice = ask.tool_choice
    if not ask.tools:
        if choice is not None and choice not in ("none", "auto"):
            raise BadRequest("tool_choice needs tools; send them, or leave it out.", "tool_choice")
        return []
    if choice == "none":
        return []
    for i, tool in enumerate(ask.tools):
        if tool.type != "function":
            raise BadRequest(f"tools[{i}].type is {tool.type!r}; send function.", f"tools[{i}].type")
    tools = [Tool(t.function.name, t.function.description or "", t.function.parameters) for t in ask.tools]
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        wanted = _allowed(choice)
        return [_of_name(name, tools) for name in wanted]
    return tools


def form_of(ask: Ask, tools: list[Tool]) -> Form | None:
    """What the answer must look like; None when that is free. `tools`: those that are offered.

    Raises:
        BadRequest: what was asked for does not fit together.
    """
    form = _forced(ask, tools) if ask.tools else None
    said = ask.response_format
    if said is not None and said.type != "text":
        if form is not None:
            why = "tool_choice forces a call, so that there is no text to which response_format could apply; send one of them."
            raise BadRequest(why, "response_format")
        form = Form(_schema(said), loosened(ask, tools), ask.parallel_tool_calls is not False)
    if form is None and not strict_ones(ask).isdisjoint(tool.name for tool in tools):
        return Form(None, loosened(ask, tools), ask.parallel_tool_calls is not False, free=True)
    if form is not None and ask.messages and ask.messages[-1].prefix:
        where = "tool_choice" if form.schema is None else "response_format"
        why = f"{where} describes a whole answer, but prefix asks for the rest of one; send one of them."
        raise BadRequest(why, where)
    return form


def strict_ones(ask: Ask) -> set[str]:
    """The names of tools that are strict."""
    return {tool.function.name for tool in ask.tools or () if tool.function.strict}


def loosened(ask: Ask, tools: list[Tool]) -> tuple[Tool, ...]:
    """The same tools; those that are not strict take any JSON object."""
    strict = strict_ones(ask)
    return tuple(tool if tool.name in strict else Tool(tool.name, tool.description, ANY) for tool in tools)


def _forced(ask: Ask, tools: list[Tool]) -> Form | None:
    """What tool_choice forces."""
    choice, many = ask.tool_choice, ask.parallel_tool_calls is not False
    if choice is None or choice in ("auto", "none"):
        return None
    if choice == "required":
        return Form(tools=tuple(tools), many=many)
    if isinstance(choice, dict):
        if choice.get("type") == "allowed_tools":
            mode = _dict(choice.get("allowed_tools")).get("mode", "auto")
            if mode not in ("auto", "required"):
                raise BadRequest(f"tool_choice.allowed_tools.mode is {mode!r}; send auto or required.", "tool_choice")
            return Form(tools=tuple(tools), many=many) if mode == "required" else None
        if choice.get("type", "function") == "function":
            return Form(tools=(_of_name(_name(choice), tools),), many=False)
    raise BadRequest(f"tool_choice is not understood; {CHOICES}.", "tool_choice")


def _allowed(choice: dict[str, Any]) -> list[str]:
    rows = _dict(choice.get("allowed_tools")).get("tools")
    if not isinstance(rows, list) or not rows:
        raise BadRequest("tool_choice.allowed_tools.tools must list tools by name.", "tool_choice")
    return [_name(row) for row in rows]


def _name(choice: object) -> str:
    name = _dict(_dict(choice).get("function")).get("name")
    if not isinstance(name, str):
        why = 'tool_choice names no function; send {"type": "function", "function": {"name": ...}}.'
        raise BadRequest(why, "tool_choice")
    return name


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _of_name(name: str, tools: list[Tool]) -> Tool:
    for tool in tools:
        if tool.name == name:
            return tool
    names = ", ".join(tool.name for tool in tools)
    raise BadRequest(f"tool_choice names {name!r}, which is not among tools: {names}.", "tool_choice")


def _schema(said: ResponseFormat) -> dict[str, Any]:
    """The schema of the content. Raises BadRequest."""
    if said.type == "json_object":
        return {}
    if said.type != "json_schema":
        why = f"response_format {said.type!r} is not offered; send text, json_object or json_schema."
        raise BadRequest(why, "response_format.type")
    if said.json_schema is None:
        why = 'response_format json_schema needs the schema; send json_schema={"name": ..., "schema": ...}.'
        raise BadRequest(why, "response_format.json_schema")
    return said.json_schema.schema or {}
