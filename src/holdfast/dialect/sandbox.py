"""A folder's chat template in a sandbox, and its habits: templates differ in what they drop without a word.

Known traps, each found by asking the template itself when the folder is opened: the released R1, V3 and V3.1 templates never show
the tools; R1's and V3's show calls only where the content is none, while others stumble over none; some put the content
behind the calls; R1's keeps what stands behind the last end of thinking, V3.1's what stands behind the first.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from msgspec import Struct

REFUSALS = (jinja2.TemplateError, TypeError, ValueError, KeyError)


class Json(str):
    """Text that is JSON already: `tojson` leaves it as it is."""


class Habits(Struct, frozen=True):
    """How a template behaves. `spoken`: what an assistant's content is cut to where it holds an end of thinking."""

    shows_tools: bool
    shows_calls: bool
    empty: str | None  # the content that an assistant's turn with nothing but calls must have
    joins: bool  # content and calls may share a turn
    fenced: bool  # calls are written as V3 and R1 write them
    spoken: str  # "whole", "first" or "last"


def compiled(source: str) -> jinja2.Template:
    """As Hugging Face's renderer sets it up (transformers, utils/chat_template_utils.py), without the network or files."""

    def refuse(why: str) -> None:
        raise jinja2.TemplateError(why)

    def tojson(value: Any, indent: int | None = None) -> str:
        return value if isinstance(value, Json) else json.dumps(value, ensure_ascii=False, indent=indent)

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = refuse
    return made.from_string(source)


def source_of(folder: Path, settings: dict[str, Any]) -> str:
    """The template's text.

    Raises:
        ValueError: there is none.
    """
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text("utf-8")
    source = settings.get("chat_template")
    if isinstance(source, list):  # several, by name
        source = {entry["name"]: entry["template"] for entry in source}.get("default")
    if not isinstance(source, str):
        raise ValueError(f"{folder} has no chat template: put one into chat_template.jinja")
    return source


def habits_of(render: Callable[..., str], source: str) -> Habits:
    """Found by asking. `render` takes the template's variables."""

    def told(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None) -> str:
        try:
            return render(messages=messages, tools=tools, add_generation_prompt=True, thinking=True)
        except REFUSALS:
            return ""

    def called(content: str | None) -> str:
        call = {"id": "c", "type": "function", "function": {"name": "qcall", "arguments": Json("{}")}}
        turn = {"role": "assistant", "content": content, "tool_calls": [call]}
        return told([asked, turn, {"role": "tool", "content": "r", "tool_call_id": "c"}])

    asked = {"role": "user", "content": "q"}
    tool = {"type": "function", "function": {"name": "qtool", "description": "d", "parameters": {}}}
    spoken = told([asked, {"role": "assistant", "content": "qone</think>qtwo</think>qthree"}, asked])
    with_none, with_text = called(None), called("qsaid")
    return Habits(
        shows_tools="qtool" in told([asked], [tool]),
        shows_calls="qcall" in with_none or "qcall" in called(""),
        empty=None if "qcall" in with_none else "",
        joins=0 <= with_text.find("qsaid") < with_text.find("qcall"),
        fenced="```json" in source,
        spoken="whole" if "qone" in spoken or "qthree" not in spoken else "first" if "qtwo" in spoken else "last",
    )
