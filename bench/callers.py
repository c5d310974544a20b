"""The clients that applications use, each asked for the whole surface: what it heard, in words that all of them share.

Every feature is greedy, so what a client hears is the same whenever and wherever it is answered; that is how answers under fire
are compared. A feature that a client has no way to ask for is named with its reason, and never called.
"""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import openai
from msgspec import Struct

FEATURES = (
    "chat", "stream", "reasoning", "tools", "forced tool", "JSON schema", "prefix", "FIM", "n", "logprobs",
    "completions", "responses", "errors", "retries",
)  # fmt: skip
SUM, COUNT, WEATHER = "What is 20 + 22?", "Count from 7 to 68.", "What is the weather in Rome?"
LONG = 900  # tokens: long enough for what is counted and listed, and to be hit while it is written
KEY, PATIENCE_S = "sk-bench", 120.0
MODEL, THINKER = "deepseek-chat", "deepseek-reasoner"
NUMBERS = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "minItems": 120, "maxItems": 130}
SCHEMA: dict[str, Any] = {
    "title": "numbers",
    "description": "Some numbers and whether they are many",
    "type": "object",
    "properties": {"numbers": NUMBERS, "many": {"type": "boolean"}},
    "required": ["numbers", "many"],
    "additionalProperties": False,
}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Current weather for a city", "parameters": CITY},
}
NOTE_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "note", "description": "Keeps numbers", "parameters": SCHEMA},
}
ON: dict[str, Any] = {"ignore_eos": True}
PLAIN: dict[str, Any] = {
    "thinking": {"type": "disabled"},
    "extra_body": {"temperature": 0},
}  # Anthropic's client knows no temperature
NODE = Path(__file__).with_name("caller.mjs")


class Heard(Struct, frozen=True, kw_only=True):
    """What a client heard, as its program would use it. `calls`: name and arguments, read as JSON and written again."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    finish: str = ""


class Caller(Struct, frozen=True):
    """One client. `asks`: how each feature is asked for; `reasons`: why the others are not."""

    name: str
    asks: dict[str, Callable[[], Heard]]
    reasons: dict[str, str] = {}


def call(name: str, arguments: object) -> tuple[str, str]:
    """A call as `Heard` holds it: raises ValueError where the arguments are not JSON."""
    value = json.loads(arguments) if isinstance(arguments, str) else arguments
    return name, json.dumps(value, sort_keys=True)


def user(text: str) -> Any:
    """A conversation of one turn."""
    return [{"role": "user", "content": text}]


class Python:
    """The openai package for Python."""

    def __init__(self, site: str, poor: str) -> None:
        self.client = openai.OpenAI(base_url=f"{site}/v1", api_key=KEY, max_retries=0, timeout=PATIENCE_S)
        self.poor = openai.OpenAI(base_url=f"{poor}/v1", api_key=KEY, max_retries=8, timeout=PATIENCE_S)

    def caller(self) -> Caller:
        asks: dict[str, Callable[[], Heard]] = {
            "chat": lambda: self._chat(user(SUM)),
            "stream": self._stream,
            "reasoning": lambda: self._chat(user(SUM), model=THINKER),
            "tools": self._tools,
            "forced tool": lambda: self._chat(user(COUNT), tools=[NOTE_TOOL], tool_choice="required"),
            "JSON schema": lambda: self._chat(
                user(COUNT),
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": "numbers", "strict": True, "schema": SCHEMA},
                },
            ),
            "prefix": lambda: self._chat([*user(COUNT), {"role": "assistant", "content": "7, 8, ", "prefix": True}]),
            "FIM": self._fim,
            "n": self._many,
            "logprobs": self._logprobs,
            "completions": self._completion,
            "responses": self._response,
            "errors": self._errors,
            "retries": self._retries,
        }
        return Caller("openai (Python)", asks)

    def _chat(self, messages: Any, model: str = MODEL, **more: Any) -> Heard:
        answer = self.client.chat.completions.create(
            model=model, messages=messages, temperature=0, max_tokens=LONG, **more
        )
        return _of_choice(answer.choices[0])

    def _stream(self) -> Heard:
        content, finish = "", ""
        for chunk in self.client.chat.completions.create(model=MODEL, messages=user(COUNT), temperature=0, stream=True):
            for choice in chunk.choices:
                content += choice.delta.content or ""
                finish = choice.finish_reason or finish
        return Heard(content=content, finish=finish)

    def _tools(self) -> Heard:
        first = self.client.chat.completions.create(
            model=MODEL, messages=user(WEATHER), tools=[WEATHER_TOOL], temperature=0
        ).choices[0]
        said: Any = first.message
        heard = _of_choice(first)
        back = [*user(WEATHER), said.model_dump(exclude_none=True)]
        back += [{"role": "tool", "tool_call_id": one.id, "content": "sunny"} for one in said.tool_calls or ()]
        second = self._chat(back, tools=[WEATHER_TOOL])
        return Heard(content=second.content, calls=heard.calls, finish=f"{heard.finish}, {second.finish}")

    def _fim(self) -> Heard:
        beta = self.client.with_options(base_url=f"{str(self.client.base_url).removesuffix('v1/')}beta")
        answer = beta.completions.create(
            model=MODEL, prompt="one two", suffix="five six", temperature=0, max_tokens=200, extra_body=ON
        )
        return Heard(content=answer.choices[0].text, finish=answer.choices[0].finish_reason)

    def _many(self) -> Heard:
        answer = self.client.chat.completions.create(
            model=MODEL, messages=user("Say a word."), n=3, seed=5, temperature=1, max_tokens=200, extra_body=ON
        )
        said = {one.index: one.message.content for one in answer.choices}
        return Heard(content=json.dumps([said[index] for index in range(3)]), finish=answer.choices[0].finish_reason)

    def _logprobs(self) -> Heard:
        answer = self.client.chat.completions.create(
            model=MODEL, messages=user(SUM), temperature=0, logprobs=True, top_logprobs=2
        )
        choice = answer.choices[0]
        rows = choice.logprobs.content if choice.logprobs is not None else None
        told = "".join(row.token for row in rows or ())
        sound = all(len(row.top_logprobs) == 2 and row.logprob <= 0 for row in rows or ())
        return Heard(content=f"{told == choice.message.content and sound}: {told}", finish=choice.finish_reason)

    def _completion(self) -> Heard:
        answer = self.client.completions.create(
            model=MODEL, prompt=["one two", "three"], temperature=0, max_tokens=200, extra_body=ON
        )
        said = {one.index: one.text for one in answer.choices}
        return Heard(content=json.dumps([said[0], said[1]]), finish=answer.choices[0].finish_reason)

    def _response(self) -> Heard:
        return of_response(
            self.client.responses.create(
                model=MODEL, input=WEATHER, tools=[_flat(WEATHER_TOOL)], temperature=0, store=False
            )
        )

    def _errors(self) -> Heard:
        told = []
        for more in ({"model": "gpt-9"}, {"temperature": 7}, {"messages": []}):
            try:
                self.client.chat.completions.create(**({"model": MODEL, "messages": user(SUM)} | more))  # fmt: skip
            except openai.APIStatusError as wrong:
                told.append(f"{wrong.status_code} {wrong.param}")
        return Heard(content="; ".join(told))

    def _retries(self) -> Heard:
        asks: dict[str, Any] = {"model": MODEL, "messages": user(SUM), "temperature": 0}
        said = [self.poor.chat.completions.create(**asks).choices[0] for _ in range(3)]
        return Heard(content="; ".join(one.message.content or "" for one in said))


def _flat(tool: dict[str, Any]) -> Any:
    return {"type": "function", "strict": False, **tool["function"]}


def _of_choice(choice: Any) -> Heard:
    said = choice.message
    calls = tuple(call(one.function.name, one.function.arguments) for one in said.tool_calls or ())
    reasoning = (said.model_extra or {}).get("reasoning_content") or ""
    return Heard(content=said.content or "", reasoning=reasoning, calls=calls, finish=choice.finish_reason)


def of_response(answer: Any) -> Heard:
    """A response object of the openai package."""
    calls = tuple(call(one.name, one.arguments) for one in answer.output if one.type == "function_call")
    return Heard(content=answer.output_text, calls=calls, finish=answer.status)


class Anthropic:
    """The anthropic package for Python, at DeepSeek's path for it."""

    def __init__(self, site: str, poor: str) -> None:
        self.client = anthropic.Anthropic(base_url=f"{site}/anthropic", api_key=KEY, max_retries=0, timeout=PATIENCE_S)
        self.poor = anthropic.Anthropic(base_url=f"{poor}/anthropic", api_key=KEY, max_retries=8, timeout=PATIENCE_S)

    def caller(self) -> Caller:
        asks: dict[str, Callable[[], Heard]] = {
            "chat": lambda: self._say(user(SUM)),
            "stream": self._stream,
            "reasoning": lambda: self._say(user(SUM), thinking={"type": "enabled", "budget_tokens": 1024}),
            "tools": self._tools,
            "forced tool": lambda: self._say(
                user(COUNT), tools=[_shaped(NOTE_TOOL)], tool_choice={"type": "tool", "name": "note"}
            ),
            "JSON schema": lambda: self._say(
                user(COUNT), output_config={"format": {"type": "json_schema", "schema": SCHEMA}}
            ),
            "prefix": lambda: self._say([*user(COUNT), {"role": "assistant", "content": "7, 8, "}]),
            "errors": self._errors,
            "retries": self._retries,
        }
        none = "Anthropic's API has no such request"
        reasons = dict.fromkeys(("FIM", "n", "logprobs", "completions", "responses"), none)
        return Caller("anthropic (Python)", asks, reasons)

    def _say(self, messages: Any, **more: Any) -> Heard:
        asked: dict[str, Any] = {"model": MODEL, "max_tokens": LONG, "messages": messages, **PLAIN, **more}
        return _of_blocks(self.client.messages.create(**asked))

    def _stream(self) -> Heard:
        with self.client.messages.stream(model=MODEL, max_tokens=LONG, messages=user(COUNT), **PLAIN) as stream:
            said = "".join(stream.text_stream)
            whole = _of_blocks(stream.get_final_message())
        return Heard(content=said if said == whole.content else f"{said!r} != {whole.content!r}", finish=whole.finish)

    def _tools(self) -> Heard:
        tools = [_shaped(WEATHER_TOOL)]
        asked: dict[str, Any] = {"model": MODEL, "max_tokens": 100, "tools": tools, **PLAIN}
        first = self.client.messages.create(messages=user(WEATHER), **asked)
        results = [
            {"type": "tool_result", "tool_use_id": one.id, "content": "sunny"}
            for one in first.content
            if one.type == "tool_use"
        ]
        said: Any = {"role": "assistant", "content": [one.model_dump() for one in first.content]}
        second = self.client.messages.create(
            messages=[*user(WEATHER), said, {"role": "user", "content": results}], **asked
        )
        one, other = _of_blocks(first), _of_blocks(second)
        return Heard(content=other.content, calls=one.calls, finish=f"{one.finish}, {other.finish}")

    def _errors(self) -> Heard:
        told = []
        for more in ({"model": "gpt-9"}, {"extra_body": {"temperature": 7}}, {"messages": []}):
            asked: dict[str, Any] = {"model": MODEL, "max_tokens": 9, "messages": user(SUM)} | more
            try:
                self.client.messages.create(**asked)
            except anthropic.APIStatusError as wrong:
                body: Any = wrong.body
                told.append(f"{wrong.status_code} {body['error']['type']}")
        return Heard(content="; ".join(told))

    def _retries(self) -> Heard:
        asked: dict[str, Any] = {"model": MODEL, "max_tokens": 50, "messages": user(SUM), **PLAIN}
        said = [_of_blocks(self.poor.messages.create(**asked)) for _ in range(3)]
        return Heard(content="; ".join(one.content for one in said))


def _shaped(tool: dict[str, Any]) -> Any:
    said = tool["function"]
    return {"name": said["name"], "description": said["description"], "input_schema": said["parameters"]}


def _of_blocks(answer: Any) -> Heard:
    content = "".join(one.text for one in answer.content if one.type == "text")
    reasoning = "".join(one.thinking for one in answer.content if one.type == "thinking")
    calls = tuple(call(one.name, one.input) for one in answer.content if one.type == "tool_use")
    return Heard(content=content, reasoning=reasoning, calls=calls, finish=answer.stop_reason)


class Node:
    """The openai package for Node.js, in a process of its own for each question."""

    def __init__(self, folder: Path, site: str, poor: str) -> None:
        self.folder, self.site, self.poor = folder, site, poor

    def caller(self) -> Caller:
        return Caller("openai (Node.js)", {feature: self._ask(feature) for feature in FEATURES})

    def _ask(self, feature: str) -> Callable[[], Heard]:
        def ask() -> Heard:
            told = {
                "feature": feature, "site": self.site, "poor": self.poor, "key": KEY, "schema": SCHEMA,
                "weather": WEATHER_TOOL, "note": NOTE_TOOL,
            }  # fmt: skip
            env = os.environ | {"NODE_PATH": str(self.folder / "node_modules")}
            done = subprocess.run(
                ["node", str(self.folder / NODE.name)], input=json.dumps(told), env=env, capture_output=True, text=True,
                timeout=PATIENCE_S, check=False,
            )  # fmt: skip
            if done.returncode:
                why = next((line for line in done.stderr.splitlines() if "Error" in line), done.stderr[-500:])
                raise RuntimeError(f"node: {why}")
            said = json.loads(done.stdout)
            calls = tuple(call(name, arguments) for name, arguments in said.get("calls", ()))
            return Heard(
                content=said.get("content", ""), reasoning=said.get("reasoning", ""), calls=calls,
                finish=said.get("finish", ""),
            )  # fmt: skip

        return ask
