"""What an answer must look like, as a grammar that the engine keeps to: a Lark grammar in llguidance's dialect.

Marks are written by id, so no text that a model writes is one. The reasoning is free and ends with its mark; what follows is JSON
that a schema describes, or calls in the format's own writing. White space inside JSON is at most one space after a separator:
a small model can't fill an answer with it. The same form gives the same text in every process.
"""

import importlib
import json
from collections.abc import Callable
from functools import cache, lru_cache
from types import ModuleType
from typing import Any

from msgspec import Struct

from holdfast.dialect.parser import Markers
from holdfast.dialect.schema import Reader
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
    """Writes grammars for one folder. `calls` is how its format writes them, where its vocabulary has the marks for it. A format
    that marks calls in text has a room of its own (dialect/dsml_grammar.py).

    `loose`: the model may open its reasoning by itself, where the prompt neither opened nor closed it, and may write line
    breaks behind it (R1); the parser must drop these.
    """

    def __init__(
        self, vocabulary: Vocabulary, marks: Markers, calls: Callable[[Markers], CallFormat] | None, loose: bool = False
    ) -> None:
        self._vocabulary = vocabulary
        self._marks = marks
        marked = -1 not in (marks.calls_begin, marks.call_begin, marks.sep, marks.call_end)
        self._calls = calls(marks) if calls and marked else None
        self._loose = loose
        self._free = _ranges(set(range(len(vocabulary))) - vocabulary.marker_ids)

    @property
    def calling(self) -> bool:
        """Whether calls can be told from text."""
        return self._calls is not None

    def write(self, prompt_ids: list[int], form: Form) -> str:
        """See Dialect.grammar."""
        if form.free and not self.calling:
            return ""
        reader, rules, ways = Reader(), list[str](), list[str]()
        if form.tools:
            rules += self._of_tools(form, reader)
            ways.append("calls")
        if form.schema is not None or not form.tools:
            schema = reader.read(form.schema if form.schema is not None else {}, SCHEMA_FIELD)
            rules.append("answer: " + json_rule(schema or {"type": "object"}, SCHEMA_FIELD))
            ways.append("answer")
        content = self._anything() if form.free else " | ".join(ways)
        text = "\n".join((self._start(prompt_ids), f"content: {content}", *rules, ""))
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

    def _anything(self) -> str:
        """What is said as the model likes, calls at its end."""
        return f"{self._free}* calls?"

    def _of_tools(self, form: Form, reader: Reader) -> list[str]:
        calls = self._calls
        if calls is None:
            raise BadRequest(
                "This model's chat format has no marks for calls: tool_choice can't force one.", "tool_choice"
            )
        again = f"({_written(calls.between)} call)*" if form.many else ""
        ways = " | ".join(f"call{i}" for i in range(len(form.tools)))
        rules = [f"calls: {_written(calls.before)} call {again} {_written(calls.after)}", f"call: {ways}"]
        for i, tool in enumerate(form.tools):
            field = f"tools[{i}].function.parameters"
            rules.append(f"call{i}: {_written(calls.call, tool.name, f'arguments{i}')}")
            rules.append(f"arguments{i}: " + json_rule(arguments_of(tool, reader, field), field))
        return rules


def arguments_of(tool: Tool, reader: Reader, field: str) -> dict[str, Any]:
    """What a tool takes: always one object."""
    if tool.parameters is None:
        return NOTHING
    schema = reader.read(tool.parameters, field)
    if schema.setdefault("type", "object") != "object":
        raise BadRequest(f"{field}.type must be object: arguments are named.", field)
    return schema


def json_rule(schema: dict[str, Any], field: str) -> str:
    """The schema as a rule's body. Raises BadRequest where it can't be compiled, as far as that can be told here."""
    body = "%json " + json.dumps(schema | {"x-guidance": _WRITTEN}, ensure_ascii=False, separators=(",", ":"))
    complaint = complaint_about("start: " + body)
    if complaint:
        raise BadRequest(f"{field} can't be kept by constrained decoding: {complaint}.", field)
    return body


@lru_cache(maxsize=512)
def complaint_about(grammar: str) -> str:
    """What the grammar engine has against a grammar; empty if nothing, or if it is not installed here: then replicas say it."""
    library = _library()
    if library is None:
        return ""
    limits = library.LLParserLimits(verbose_errors=False)
    faulty, said = library.LLMatcher.validate_grammar_with_warnings(grammar, limits=limits)
    if not faulty:
        return ""
    first = str(said[0]).strip().partition("\n")[0]
    return first.partition("failed to compile JSON schema: ")[2] or first


@cache
def _library() -> ModuleType | None:
    try:
        return importlib.import_module("llguidance")
    except ImportError:
        return None


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
