"""Any other DeepSeek folder: its own chat template in a sandbox, its own tokenizer, markers put in by id.

What a client writes may hold a marker's written form. It is broken up with a noncharacter before the template runs, and put
together again after the rendered text has been cut at the template's own markers: so it stays text.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from holdfast.dialect.grammar import Grammars, bare, fenced
from holdfast.dialect.parser import MarkerParser, Markers, begins_reasoning, thinking_end
from holdfast.dialect.vocabulary import Vocabulary
from holdfast.domain.dialect import Form, Message, ThinkingEnd, Tool
from holdfast.domain.fault import BadRequest

NONCHARACTERS = [chr(point) for point in range(0xFDD0, 0xFDF0)]
THINK_MARKS = ("<think>", "</think>")  # templates look for these in an assistant's turn


class TemplateDialect:
    """Renders with the folder's chat_template; parses by the markers that its vocabulary has."""

    def __init__(self, folder: Path) -> None:
        self._vocabulary = Vocabulary(folder)
        self._markers = Markers.of(self._vocabulary)
        path = folder / "tokenizer_config.json"
        settings: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        source = _source(folder, settings)
        self._template = _environment().from_string(source)
        calls = fenced if "```json" in source else bare  # V3 and R1 fence their arguments, V3.1 does not
        self._grammars = Grammars(self._vocabulary, self._markers, calls, loose=True)
        self._words = {
            name: _written(settings.get(name)) for name in ("bos_token", "eos_token", "pad_token", "unk_token")
        }
        self._stop_ids = _stop_ids(folder, self._vocabulary, self._words["eos_token"])
        self._cut = re.compile(_pattern(self._vocabulary)) if self._vocabulary.markers else None

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return self._stop_ids

    @property
    def vocab_size(self) -> int:
        return len(self._vocabulary)

    @property
    def token_bytes_max(self) -> int:
        return self._vocabulary.token_bytes_max

    def bytes_of(self, token: int) -> bytes:
        return self._vocabulary.bytes_of(token)

    def parser(self, prompt_ids: list[int]) -> MarkerParser:
        reasoning = begins_reasoning(prompt_ids, self._markers, self._vocabulary)
        return MarkerParser(self._vocabulary, self._markers, reasoning, trims=True)

    def thinking_end(self, prompt_ids: list[int]) -> ThinkingEnd | None:
        return thinking_end(prompt_ids, self._markers, self._vocabulary)

    def grammar(self, prompt_ids: list[int], form: Form) -> str:
        return self._grammars.write(prompt_ids, form)

    def render(self, messages: list[Message], tools: list[Tool], thinking: bool, json_mode: bool) -> list[int]:
        """Prompt ids by the folder's template.

        Raises:
            BadRequest: the template refuses these messages, or they hold every noncharacter there is.
        """
        if json_mode:
            messages = [Message("system", "Answer with one JSON object."), *messages]
        tied = self._tied(messages, tools)
        last = messages[-1]
        opened = last.role == "assistant" and last.prefix
        try:
            text = self._template.render(
                messages=[_turn(message, tied) for message in messages],
                tools=[_tool(tool, tied) for tool in tools] or None,
                add_generation_prompt=not opened,
                thinking=thinking,
                enable_thinking=thinking,
                **self._words,
            )
        except (jinja2.TemplateError, TypeError, ValueError, KeyError) as error:
            raise BadRequest(f"The model's chat template refuses these messages: {error}.", "messages") from error
        if opened and self._words["eos_token"]:
            text = text.removesuffix(self._words["eos_token"])
        return self._ids(text, tied("<")[1:])

    def _tied(self, messages: list[Message], tools: list[Tool]) -> Callable[[str], str]:
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


def _environment() -> ImmutableSandboxedEnvironment:
    """As Hugging Face's renderer sets it up (transformers, utils/chat_template_utils.py), without the network or files."""

    def refuse(why: str) -> None:
        raise jinja2.TemplateError(why)

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    made.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    made.globals["raise_exception"] = refuse
    return made


def _source(folder: Path, settings: dict[str, Any]) -> str:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text("utf-8")
    source = settings.get("chat_template")
    if isinstance(source, list):  # several, by name
        source = {entry["name"]: entry["template"] for entry in source}.get("default")
    if not isinstance(source, str):
        raise ValueError(f"{folder} has no chat template: put one into chat_template.jinja")
    return source


def _written(token: object) -> str:
    """tokenizer_config.json writes a token as a string or as an object with its content."""
    if isinstance(token, dict):
        return str(token.get("content") or "")
    return str(token or "")


def _stop_ids(folder: Path, vocabulary: Vocabulary, eos: str) -> tuple[int, ...]:
    """eos of the tokenizer, and whatever generation_config.json or config.json names."""
    found: list[int] = [vocabulary.markers[eos]] if eos in vocabulary.markers else []
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        if path.is_file():
            said = json.loads(path.read_text("utf-8")).get("eos_token_id")
            found += said if isinstance(said, list) else [said] if isinstance(said, int) else []
    return tuple(dict.fromkeys(found))


def _pattern(vocabulary: Vocabulary) -> str:
    """One group that matches any marker, the longest first, with the white space that some of them swallow."""
    ways = []
    for marker in sorted(vocabulary.markers, key=len, reverse=True):
        left, right = vocabulary.greedy[marker]
        ways.append((r"\s*" if left else "") + re.escape(marker) + (r"\s*" if right else ""))
    return f"({'|'.join(ways)})"


def _turn(message: Message, tied: Callable[[str], str]) -> dict[str, Any]:
    content = tied(message.content)
    if message.role == "assistant":
        for mark in THINK_MARKS:
            content = content.replace(tied(mark), mark)
    turn: dict[str, Any] = {"role": message.role, "content": content}
    if message.calls:
        turn["tool_calls"] = [
            {
                "id": tied(call.id),
                "type": "function",
                "function": {"name": tied(call.name), "arguments": tied(call.arguments)},
            }
            for call in message.calls
        ]
    if message.call_id:
        turn["tool_call_id"] = tied(message.call_id)
    if message.prefix:
        turn["prefix"] = True
    return turn


def _tool(tool: Tool, tied: Callable[[str], str]) -> dict[str, Any]:
    schema = _deep(tool.parameters or {}, tied)
    function = {"name": tied(tool.name), "description": tied(tool.description), "parameters": schema}
    return {"type": "function", "function": function}


def _deep(value: Any, tied: Callable[[str], str]) -> Any:
    """Every string inside a JSON value, keys too."""
    if isinstance(value, str):
        return tied(value)
    if isinstance(value, dict):
        return {tied(key): _deep(inner, tied) for key, inner in value.items()}
    return [_deep(inner, tied) for inner in value] if isinstance(value, list) else value
