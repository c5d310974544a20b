"""Writes the golden files, and compares every dialect with what DeepSeek itself released, over random conversations.

    python tests/dialect/golden/write.py SOURCES [CONVERSATIONS]

SOURCES holds tokenizer.json of a DeepSeek release; encoding_dsv32.py and encoding_dsv4.py as released; NAME.jinja files: released
chat templates. V4.1's judge is DeepSeek's package deepseek-recipe. None of them is part of this repository.
"""

import importlib
import importlib.util
import json
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from holdfast.dialect.open import open_dialect
from holdfast.domain.dialect import Dialect, Message, Tool, ToolCall

HERE = Path(__file__).parent
KEPT = ("dsv32", "dsv4", "dsv41", "r1", "r1_distill", "v31")
BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
ADD = Tool(
    "add", "Adds two numbers.", {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
)
SAY = Tool("say", "Says “hi”.", {"type": "object", "properties": {"text": {"type": "string"}}})
FIRST = ToolCall("add", '{"a": 1, "b": [2, {"c": null}]}', "call_1")
SECOND = ToolCall("say", '{"text": "x < y\\n\\"日本\\" </x>"}', "call_2")
USER, SYSTEM = Message("user", "What is 1 + 2?"), Message("system", "Be short.")
CALLING = Message("assistant", "", (FIRST,), reasoning="I must add.")
TWO = Message("assistant", "Wait.", (FIRST, SECOND), reasoning="Both.")
RESULTS = [Message("tool", "3", call_id="call_1"), Message("tool", "ok", call_id="call_2")]
DONE = Message("assistant", "3.", reasoning="Easy.")
Case = tuple[str, list[Message], list[Tool]]
CASES: list[Case] = [
    ("asked", [USER], []),
    ("system", [SYSTEM, USER], []),
    ("turns", [SYSTEM, USER, DONE, Message("user", "And 3 + 4?")], []),
    ("unicode", [Message("user", "日本語 👩‍🚀 \n\n tail ")], []),
    ("called", [USER, CALLING, RESULTS[0]], []),
    ("after a call", [SYSTEM, USER, CALLING, RESULTS[0], DONE, Message("user", "Thanks.")], []),
]
TOOLED: list[Case] = [
    ("a tool", [USER], [ADD]),
    ("tools and a system", [SYSTEM, USER], [ADD, SAY]),
    ("two calls", [SYSTEM, USER, TWO, *RESULTS], [ADD, SAY]),
    ("two calls, then more", [USER, TWO, *RESULTS, DONE, Message("user", "Again."), CALLING, RESULTS[0]], [ADD, SAY]),
]
OPENED: list[Case] = [
    ("prefix", [USER, Message("assistant", "It is", prefix=True)], []),
    ("thought prefix", [USER, Message("assistant", "It is", prefix=True, reasoning="Easy.")], []),
]
THOUGHT: Case = ("open thought", [USER, Message("assistant", "", prefix=True, reasoning="I must")], [])


def client(message: Message, arguments: Callable[[str], Any] = str) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.calls:
        turn["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": arguments(c.arguments)}}
            for c in message.calls
        ]
    if message.reasoning:
        turn["reasoning_content"] = message.reasoning
    if message.call_id:
        turn["tool_call_id"] = message.call_id
    if message.prefix:
        turn["wo_eos"] = turn["prefix"] = True
    return turn


def offered(tools: list[Tool]) -> list[dict[str, Any]]:
    return [
        {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": t.parameters}}
        for t in tools
    ]


def module_of(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def by_encoder(path: Path) -> Callable[[list[Message], list[Tool], bool, str], str]:
    """A release's own program, called as SGLang does: tools belong to the first system turn."""
    module = module_of(path)

    def render(messages: list[Message], tools: list[Tool], thinking: bool, effort: str) -> str:
        told = [client(message) for message in messages]
        if tools:
            if told[0]["role"] != "system":
                told.insert(0, {"role": "system", "content": ""})
            told[0]["tools"] = offered(tools)
        more = {"reasoning_effort": effort} if effort and "dsv4" in path.stem else {}
        text: str = module.encode_messages(told, "thinking" if thinking else "chat", **more)
        return text

    return render


def by_recipe() -> Callable[[list[Message], list[Tool], bool, str], str]:
    recipe = importlib.import_module("deepseek_recipe")

    def turn(m: Message) -> Any:
        if m.role == "assistant":
            calls = [recipe.ToolCall(c.id, c.name, c.arguments) for c in m.calls] or None
            return recipe.AssistantMessage(m.content, m.reasoning or None, calls, m.prefix)
        if m.role == "tool":
            return recipe.ToolMessage(m.content, m.call_id)
        return (recipe.SystemMessage if m.role == "system" else recipe.UserMessage)(m.content)

    def render(messages: list[Message], tools: list[Tool], thinking: bool, effort: str) -> str:
        definitions = [recipe.ToolDefinition(t.name, t.description, t.parameters) for t in tools]
        conversation = recipe.Conversation(
            [turn(m) for m in messages], tools=definitions, thinking_mode=thinking, reasoning_effort=effort or None
        )
        text: str = recipe.DeepseekV41Encoding().render_conversation(conversation).prompt
        return text

    return render


def by_template(source: str) -> Callable[[list[Message], list[Tool], bool, str], str]:
    """transformers' own renderer; an opened turn loses its end."""

    def render(messages: list[Message], tools: list[Tool], thinking: bool, effort: str) -> str:
        told = [client(m, json.loads if "'arguments']|tojson" in source else str) for m in messages]
        for turn in told:
            turn["content"] = None if "tool_calls" in turn and not turn["content"] else turn["content"]
        rendered, _ = render_jinja_template(
            [told], tools=offered(tools) or None, chat_template=source, add_generation_prompt=not messages[-1].prefix,
            bos_token=BOS, eos_token=EOS, thinking=thinking, enable_thinking=thinking,
        )  # fmt: skip
        text: str = rendered[0]
        return text[: text.rindex(EOS)] if messages[-1].prefix else text

    return render


def conversation(chance: random.Random, tooled: bool, opened: bool) -> list[Message]:
    """Any that is well-formed."""

    def words(least: int = 0) -> str:
        return "".join(chance.choices(["a", "b ", "\n", "日", "<", "｜", "{", '"', "x1"], k=chance.randint(least, 6)))

    turns = [Message("system", words(1))] if chance.random() < 0.5 else []
    for _ in range(chance.randint(1, 3)):
        turns.append(Message("user", words()))
        while tooled and chance.random() < 0.5:
            calls = tuple(
                ToolCall(f"f{k}", written({words(1): chance.choice([words(), 1, None, [words()]])}), f"c{k}")
                for k in range(chance.randint(1, 3))
            )
            turns.append(Message("assistant", words(), calls, reasoning=words()))
            results = [Message("tool", words(), call_id=call.id) for call in calls]
            chance.shuffle(results)
            turns += results
        turns.append(Message("assistant", words(), reasoning=words(1)))
    if opened and chance.random() < 0.5 and turns[-2].role == "user":
        last = turns[-1]
        return [*turns[:-1], Message("assistant", last.content or "x", prefix=True, reasoning=last.reasoning)]
    return turns[:-1]


def written(arguments: dict[str, Any]) -> str:
    return json.dumps(arguments, ensure_ascii=False)


def text_of(dialect: Dialect, ids: list[int]) -> str:
    return b"".join(map(dialect.bytes_of, ids)).decode()


def misread(path: Path, dialect: Dialect, count: int) -> int:
    """Answers that the release's own program reads differently, of random ones that it wrote itself."""
    module, chance, wrong = module_of(path), random.Random(11), 0
    for _ in range(count):
        said = [m for m in conversation(chance, True, False) if m.role == "assistant" and (m.calls or m.reasoning)][:1]
        if not said or "\n" in said[0].content[-1:]:  # it can't tell such a line break from those before a block
            continue
        prompt = module.encode_messages([client(USER)], "thinking")
        answer = module.encode_messages([client(USER), client(said[0])], "thinking").removeprefix(prompt)
        theirs = module.parse_message_from_completion_text(answer, "thinking")
        parser = dialect.parser(dialect.render([USER], [], True, False))
        ids = []
        for i, part in enumerate(re.split("(</think>|｜DSML｜)", answer.removesuffix(EOS))):
            ids += [marker(dialect, part)] if i % 2 else dialect.encode(part)
        heard = [*(parser.feed([token]) for token in ids), parser.end()]
        calls = [(call["function"]["name"], call["function"]["arguments"]) for call in theirs["tool_calls"]]
        mine = [(call.name, call.arguments) for one in heard for call in one.calls]
        content, reasoning = ("".join(getattr(one, part) for one in heard) for part in ("content", "reasoning"))
        wrong += (mine, content, reasoning) != (calls, theirs["content"], theirs["reasoning_content"])
    return wrong


@lru_cache
def marker(dialect: Dialect, text: str) -> int:
    return next(token for token in reversed(range(dialect.vocab_size)) if dialect.bytes_of(token) == text.encode())


def opened_folder(place: Path, sources: Path, name: str) -> Dialect:
    """A model folder of this generation."""
    folder = place / name
    (folder / "encoding").mkdir(parents=True)
    spec = json.loads((sources / "tokenizer.json").read_text("utf-8"))
    if "<｜System｜>" not in [token["content"] for token in spec["added_tokens"]]:  # V4.1's, where V4 keeps a place
        spare = next(token for token in spec["added_tokens"] if "place" in token["content"])
        spare["content"] = "<｜System｜>"
    (folder / "tokenizer.json").write_text(json.dumps(spec), "utf-8")
    if name.startswith("dsv"):
        shutil.copy(sources / f"encoding_{name}.py", folder / "encoding")
    else:
        shutil.copy(sources / f"{name}.jinja", folder / "chat_template.jinja")
        (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": BOS, "eos_token": EOS}))
    return open_dialect(folder)


def main() -> None:
    sources = Path(sys.argv[1])
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    with tempfile.TemporaryDirectory() as place:
        for path in sorted([*sources.glob("*.jinja"), *sources.glob("encoding_dsv*.py")]):
            name = path.stem.removeprefix("encoding_")
            words = path.suffix == ".py"
            judge = (
                by_encoder(path)
                if words and name != "dsv41"
                else by_recipe()
                if words
                else by_template(path.read_text())
            )
            dialect = opened_folder(Path(place), sources, name)
            prefixes = (
                [] if name == "dsv32" else [*OPENED, THOUGHT] if name == "dsv41" else OPENED if words else OPENED[:1]
            )
            # V3.2's program knows no opened turns, V4's always ends their thinking; the package does not
            cases = [*CASES, *prefixes, *(TOOLED if words or "if tools %}" in path.read_text() else [])]
            efforts = (
                ("", "high", "max") if name == "dsv4" else ("", "low", "high", "max") if name == "dsv41" else ("",)
            )
            told = []
            for label, messages, tools in cases:
                for thinking in (True, False):
                    for effort in efforts if label in ("asked", "system") else ("",):
                        text = judge(messages, tools, thinking, effort)
                        told.append({"case": label, "thinking": thinking, "effort": effort, "text": text})
            if name in KEPT:
                (HERE / f"{name}.json").write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", "utf-8")
            chance, wrong = random.Random(7), 0
            for k in range(count):
                messages = conversation(chance, words or name.startswith("v3"), words and name != "dsv32")
                tools = [[], [ADD], [ADD, SAY]][k % 3] if words or TOOLED[0] in cases else []
                thinking, effort = chance.random() < 0.5, chance.choice(efforts)
                mine = text_of(dialect, dialect.render(messages, tools, thinking, False, effort))
                if mine != (theirs := judge(messages, tools, thinking, effort)):
                    wrong += 1
                    if wrong < 3:
                        print(name, thinking, effort, bool(tools), messages, repr(mine), repr(theirs), sep="\n  ")
            if name in ("dsv32", "dsv4"):
                print(f"{name}: {count} random answers, {misread(path, dialect, count)} read differently")
            print(f"{name}: {len(told)} golden texts; {count} random conversations, {wrong} rendered differently")


if __name__ == "__main__":
    main()
