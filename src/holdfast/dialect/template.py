"""R1 and its distills, V3, V3.1: the folder's own chat template in a sandbox, its own tokenizer, markers put in by id.

What a client writes may hold a marker's written form. It is broken up with a noncharacter before the template runs, and put
together again after the rendered text has been cut at the template's own markers: so it stays text.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast.dialect.draft import marker_pattern
from holdfast.dialect.grammar import Grammars, bare, fenced
from holdfast.dialect.parser import FENCE, MarkerParser, Markers, begun_reasoning, thinking_end
from holdfast.dialect.sandbox import REFUSALS, Json, compiled, habits_of, source_of
from holdfast.dialect.speaker import Speaker, stop_ids_of
from holdfast.dialect.vocabulary import Vocabulary
from holdfast.domain.dialect import Message, Tool, ToolCall
from holdfast.domain.fault import BadRequest

NONCHARACTERS = [chr(point) for point in range(0xFDD0, 0xFDF0)]
END_THINK = "</think>"
JSON_LINE = "Answer with one JSON object."
Tie = Callable[[str], str]


class TemplateDialect(Speaker):
    """Renders with the folder's chat_template; parses by the markers that its vocabulary has."""

    def __init__(self, folder: Path) -> None:
        vocabulary = Vocabulary(folder)
        path = folder / "tokenizer_config.json"
        settings: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        source = source_of(folder, settings)
        names = ("bos_token", "eos_token", "pad_token", "unk_token")
        self._words = {name: _written(settings.get(name)) for name in names}
        self._template = compiled(source)
        self._habits = habits_of(self._filled, source)
        grammars = Grammars(vocabulary, Markers.of(vocabulary), fenced if self._habits.fenced else bare, loose=True)
        stops = stop_ids_of(folder, vocabulary, self._words["eos_token"])
        super().__init__(vocabulary, grammars, stops, self._words["bos_token"])
        self._cut = re.compile(marker_pattern(vocabulary)) if vocabulary.markers else None

    def parser(self, prompt_ids: list[int]) -> MarkerParser:
        thought = begun_reasoning(prompt_ids, self._markers, self._vocabulary)
        begun = bool(thought) and bool(b"".join(map(self.bytes_of, thought or [])).strip(b"\n"))
        fenced = self._habits.fenced
        return MarkerParser(self._vocabulary, self._markers, thought is not None, not begun, fenced)

    def render(
        self, messages: list[Message], tools: list[Tool], thinking: bool, json_mode: bool, effort: str = ""
    ) -> list[int]:
        """Prompt ids by the folder's template.

        Raises:
            BadRequest: the template refuses these messages, or they hold every noncharacter there is.
        """
        tied = self._tied(messages, tools)
        first = self._first(messages, tools, json_mode, tied)
        turns = [message for message in messages if message.role not in ("system", "developer")]
        shown = [_tool(tool, tied) for tool in tools] if tools and self._habits.shows_tools else None
        last = messages[-1]
        opened = last.role == "assistant" and last.prefix
        if opened and thinking and last.reasoning:
            ids = self._ids(self._told(first, turns[:-1], shown, thinking, tied), tied("<")[1:])
            if self._habits.spoken != "whole" and len(turns) > 1 and turns[-2].role == "user":
                ids = self._opening(ids)
            end = thinking_end(ids, self._markers, self._vocabulary)
            if end is not None:
                ids += self.encode(last.reasoning)
                return [*ids, *end.ids, *self.encode(last.content)] if last.content else ids
        text = self._told(first, turns, shown, thinking, tied)
        eos = self._words["eos_token"]
        if opened and eos and text.rstrip().endswith(eos):
            text = text[: text.rindex(eos)]
        return self._ids(text, tied("<")[1:])

    def _told(
        self,
        first: list[dict[str, Any]],
        turns: list[Message],
        tools: list[dict[str, Any]] | None,
        thinking: bool,
        tied: Tie,
    ) -> str:
        try:
            shown = [*first, *(turn for message in turns for turn in self._turns(message, tied))]
            prompted = not turns or turns[-1].role != "assistant" or not turns[-1].prefix
            return self._filled(messages=shown, tools=tools, add_generation_prompt=prompted, thinking=thinking)
        except REFUSALS as error:
            raise BadRequest(f"The model's chat template refuses these messages: {error}.", "messages") from error

    def _opening(self, ids: list[int]) -> list[int]:
        """The first distills' templates leave it to the model to open its thinking."""
        if self._markers.think < 0 or ids[-1] in (self._markers.think, self._markers.end_think):
            return ids
        opened = begun_reasoning(ids, self._markers, self._vocabulary) is not None
        return ids if opened else [*ids, self._markers.think, *self.encode("\n")]

    def _filled(self, thinking: bool, **more: Any) -> str:
        return self._template.render(thinking=thinking, enable_thinking=thinking, **more, **self._words)

    def _first(self, messages: list[Message], tools: list[Tool], json_mode: bool, tied: Tie) -> list[dict[str, Any]]:
        """All system and developer turns as one: templates know no developers, and R1's shows but the last system."""
        blocks = [tied(message.content) for message in messages if message.role in ("system", "developer")]
        if tools and not self._habits.shows_tools:
            if self._markers.call_begin < 0 or self._markers.sep < 0:
                why = "This model's vocabulary has no marks for calls and its template shows no tools; leave tools out."
                raise BadRequest(why, "tools")
            blocks.append(_tools(tools, self._habits.fenced, tied))
        if json_mode:
            blocks.append(JSON_LINE)
        while len(blocks) > 1 and not blocks[0]:
            del blocks[0]
        return [{"role": "system", "content": "\n\n".join(blocks)}] if blocks else []

    def _turns(self, message: Message, tied: Tie) -> list[dict[str, Any]]:
        content = message.content
        if message.role == "assistant" and END_THINK in content and self._habits.spoken != "whole":
            content = (
                content.partition(END_THINK)[2] if self._habits.spoken == "first" else content.rpartition(END_THINK)[2]
            )
        turn: dict[str, Any] = {"role": message.role, "content": tied(content)}
        if message.call_id:
            turn["tool_call_id"] = tied(message.call_id)
        if message.prefix:
            turn["prefix"] = True
        if not message.calls:
            return [turn]
        if not self._habits.shows_calls:
            raise BadRequest("This model's chat template can't show calls; leave tool_calls out.", "messages")
        calls = {"tool_calls": [_call(call, tied) for call in message.calls]}
        if not content:
            return [turn | calls | {"content": self._habits.empty}]
        if self._habits.joins:
            return [turn | calls]
        return [turn, turn | calls | {"content": self._habits.empty}]

    def _tied(self, messages: list[Message], tools: list[Tool]) -> Tie:
        """A function that breaks up whatever could be read as a marker."""
        written = "".join(message.content for message in messages) + repr(tools) + repr([m.calls for m in messages])
        mark = next((char for char in NONCHARACTERS if char not in written), None)
        if mark is None:
            raise BadRequest("The messages hold all of U+FDD0 to U+FDEF; leave one out.", "messages")
        firsts = "".join(sorted({re.escape(marker[0]) for marker in self._vocabulary.markers} | {"<"}))
        pattern = re.compile(f"([{firsts}])")
        return lambda text: pattern.sub(rf"\g<1>{mark}", text)

    def _ids(self, text: str, mark: str) -> list[int]:
        ids: list[int] = []
        encode = self._vocabulary.encode
        if self._cut is None:
            return encode(text.replace(mark, ""))
        for i, part in enumerate(self._cut.split(text)):
            if i % 2:
                ids.append(self._vocabulary.markers[part.strip()])
            else:
                ids += encode(part.replace(mark, ""))
        return ids


def _written(token: object) -> str:
    """tokenizer_config.json writes a token as a string or as an object with its content."""
    if isinstance(token, dict):
        return str(token.get("content") or "")
    return str(token or "")


def _call(call: ToolCall, tied: Tie) -> dict[str, Any]:
    function = {"name": tied(call.name), "arguments": Json(tied(call.arguments))}
    return {"id": tied(call.id), "type": "function", "function": function}


def _tool(tool: Tool, tied: Tie) -> dict[str, Any]:
    schema = _deep(tool.parameters or {}, tied)
    function = {"name": tied(tool.name), "description": tied(tool.description), "parameters": schema}
    return {"type": "function", "function": function}


def _tools(tools: list[Tool], fenced: bool, tied: Tie) -> str:
    """For templates that show no tools: what there is, and how this generation calls it."""
    lines = ["## Tools", "These functions can be called:"]
    for tool in tools:
        schema = json.dumps(_deep(tool.parameters or {}, tied), ensure_ascii=False)
        lines.append(f"\n### {tied(tool.name)}\n{tied(tool.description)}\nParameters (JSON schema): {schema}")
    head, end = ("function<｜tool▁sep｜>NAME" + FENCE, "\n```") if fenced else ("NAME<｜tool▁sep｜>", "")
    lines += [
        "\nTo call, write exactly this, with the function's name and one JSON object of arguments:",
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{head}ARGUMENTS{end}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "Repeat the part from tool▁call▁begin to tool▁call▁end for each further call.",
    ]
    return "\n".join(lines)


def _deep(value: Any, tied: Tie) -> Any:
    """Every string inside a JSON value, keys too."""
    if isinstance(value, str):
        return tied(value)
    if isinstance(value, dict):
        return {tied(key): _deep(inner, tied) for key, inner in value.items()}
    return [_deep(inner, tied) for inner in value] if isinstance(value, list) else value
