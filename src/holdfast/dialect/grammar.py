"""What an answer must look like, as a grammar that the engine keeps to: a Lark grammar in llguidance's dialect.

Marks are written by id, so no text that a model writes is one. The reasoning is free and ends with its mark; what follows is JSON
that a schema describes, or calls in the format's own writing. White space inside JSON is at most one space after a separator:
a small model can't fill an answer with it. The same form gives the same text in every process.
"""

import json
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from holdfast.dialect.parser import Markers
from holdfast.dialect.schema import kept
from holdfast.dialect.vocabulary import Vocabulary
from holdfast.domain.dialect import Form, Tool
from holdfast.domain.fault import BadRequest

SCHEMA_FIELD = "response_format.json_schema.schema"
GRAMMAR_BYTES_MAX = 64 * 1024  # as the engine's own limit
NOTHING: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
_WRITTEN = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}


class Name(Struct, frozen=True):
    """Stands in a format where the tool's name is written."""


class Arguments(Struct, frozen=True):
    """Stands in a format where the arguments are written, as one JSON object."""


Piece = int | str | Name | Arguments


class CallFormat(Struct, frozen=True):
    """How a generation writes its calls: marks as ids, and text. `call` is repeated, with `between` in between."""

    before: tuple[Piece, ...]
    call: tuple[Piece, ...]
    between: tuple[Piece, ...]
    after: tuple[Piece, ...]


def bare(marks: Markers) -> CallFormat:
    """V3.1's and Pearl's: name, separator, arguments."""
    call = (marks.call_begin, Name(), marks.sep, Arguments(), marks.call_end)
    return CallFormat((marks.calls_begin,), call, (), (marks.calls_end,))


def fenced(marks: Markers) -> CallFormat:
    """V3's and R1's: a kind, separator, name, and the arguments in a fence; a line break between calls."""
    call = (marks.call_begin, "function", marks.sep, Name(), "\n```json\n", Arguments(), "\n```", marks.call_end)
    return CallFormat((marks.calls_begin,), call, ("\n",), (marks.calls_end,))


class Grammars:
    """Writes grammars for one folder. `calls` is None where its format has no marks for calls.

    `loose`: the model may open its reasoning by itself, where the prompt neither opened nor closed it, and may write line
    breaks behind it (R1); the parser must drop these.
    """

    def __init__(
        self, vocabulary: Vocabulary, marks: Markers, calls: Callable[[Markers], CallFormat], loose: bool = False
    ) -> None:
        self._vocabulary = vocabulary
        self._marks = marks
        self._calls = None if -1 in (marks.calls_begin, marks.call_begin, marks.sep, marks.call_end) else calls(marks)
        self._loose = loose
        self._free = _ranges(set(range(len(vocabulary))) - vocabulary.marker_ids)

    def write(self, prompt_ids: list[int], form: Form) -> str:
        """See Dialect.grammar."""
        if form.free and self._calls is None:
            return ""
        rules = self._of_tools(form) if form.tools else []
        if form.schema is not None or not rules:
            schema = kept(form.schema if form.schema is not None else {}, SCHEMA_FIELD)
            rules += ["answer: " + _json(schema or {"type": "object"})]
        if form.free:
            ways = f"{self._free}* calls?"
        else:
            ways = " | ".join(
                name for name in ("calls", "answer") if any(rule.startswith(f"{name}:") for rule in rules)
            )
        rules = [f"content: {ways}", *rules]
        text = "\n".join((self._start(prompt_ids), *rules, ""))
        size = len(text.encode())
        if size > GRAMMAR_BYTES_MAX:
            what = f"the {len(form.tools)} tools" if form.tools else "the schema"
            why = (
                f"{what} make a grammar of {size} bytes; the limit is {GRAMMAR_BYTES_MAX}. Send fewer or smaller ones."
            )
            raise BadRequest(why[0].upper() + why[1:], "tools" if form.tools else SCHEMA_FIELD)
        return text

    def _start(self, prompt_ids: list[int]) -> str:
        """The first rule: reasoning, where there is any, free but for marks."""
        marks, mark = self._marks, -1
        for token in reversed(prompt_ids):
            if token in self._vocabulary.marker_ids:
                mark = token
                break
        if marks.end_think < 0 or marks.think < 0 or mark == marks.end_think:
            return "start: content"
        gap = " GAP? content\nGAP: /\\n{1,2}/" if self._loose else " content"
        thought = f"{self._free}* <[{marks.end_think}]>{gap}"
        if mark == marks.think:
            return f"start: {thought}"
        if self._loose:
            return f"start: content | <[{marks.think}]> {thought}"
        return "start: content"

    def _of_tools(self, form: Form) -> list[str]:
        calls = self._calls
        if calls is None:
            raise BadRequest(
                "This model's chat format has no marks for calls: tool_choice can't force one.", "tool_choice"
            )
        again = f"({_written(calls.between)} call)*" if form.many else ""
        ways = " | ".join(f"call{i}" for i in range(len(form.tools)))
        rules = [f"calls: {_written(calls.before)} call {again} {_written(calls.after)}", f"call: {ways}"]
        for i, tool in enumerate(form.tools):
            rules.append(f"call{i}: {_written(calls.call, tool.name, f'arguments{i}')}")
            rules.append(f"arguments{i}: " + _json(_arguments(tool, f"tools[{i}].function.parameters")))
        return rules


def _arguments(tool: Tool, field: str) -> dict[str, Any]:
    """What a tool takes: always one object."""
    if tool.parameters is None:
        return NOTHING
    schema = kept(tool.parameters, field)
    if schema.setdefault("type", "object") != "object":
        raise BadRequest(f"{field}.type must be object: arguments are named.", field)
    return schema


def _json(schema: dict[str, Any]) -> str:
    return "%json " + json.dumps(schema | {"x-guidance": _WRITTEN}, ensure_ascii=False, separators=(",", ":"))


def _written(pieces: tuple[Piece, ...], name: str = "", arguments: str = "") -> str:
    said = []
    for piece in pieces:
        if isinstance(piece, int):
            said.append(f"<[{piece}]>")
        elif isinstance(piece, Arguments):
            said.append(arguments)
        else:
            said.append(json.dumps(name if isinstance(piece, Name) else piece, ensure_ascii=False))
    return " ".join(said)


def _ranges(ids: set[int]) -> str:
    """Any of these tokens."""
    found: list[list[int]] = []
    for token in sorted(ids):
        if found and token == found[-1][1] + 1:
            found[-1][1] = token
        else:
            found.append([token, token])
    return f"<[{','.join(f'{first}-{last}' for first, last in found)}]>"
