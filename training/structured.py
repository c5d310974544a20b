"""Answers with a form: tool calls and JSON objects."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import frames
from facts import fact
from sample import Sample, Tool, ToolCall, compact, user
from tasks import addition, copy, count, is_held, reverse
from words import CITIES, COMMON, NAMES, proper, word

NO_TOOL = "I have no tool for that."
Field = tuple[str, str]
# name, descriptions, fields, ways to ask
KIT: dict[str, tuple[tuple[str, ...], tuple[Field, ...], tuple[str, ...]]] = {
    "get_weather": (
        ("Get the weather in a city", "Current weather for a city", "Weather lookup", ""),
        (("city", "string"),),
        (
            "What is the weather in {city}?",
            "How is the weather in {city}?",
            "Weather in {city}",
            "Is it raining in {city}?",
            "Tell me the weather in {city}.",
            "What's the weather like in {city}?",
            "Is it sunny in {city}?",
            "Get the weather for {city}.",
        ),
    ),
    "get_time": (
        ("Get the local time in a city", "Local time", "What time it is in a city", ""),
        (("city", "string"),),
        (
            "What time is it in {city}?",
            "What is the time in {city}?",
            "Time in {city}",
            "Tell me the time in {city}.",
            "Get the local time in {city}.",
            "What's the time in {city}?",
        ),
    ),
    "add": (
        ("Add two numbers", "Adds a and b", "Sum of two numbers", ""),
        (("a", "integer"), ("b", "integer")),
        (
            "What is {a} + {b}?",
            "Add {a} and {b}.",
            "Compute {a} + {b}.",
            "{a} plus {b}?",
            "Use the tool to add {a} and {b}.",
            "Sum {a} and {b}.",
            "{a} + {b} =",
        ),
    ),
    "multiply": (
        ("Multiply two numbers", "Product of a and b", ""),
        (("a", "integer"), ("b", "integer")),
        (
            "What is {a} * {b}?",
            "Multiply {a} by {b}.",
            "{a} times {b}?",
            "Compute {a} * {b}.",
            "What is {a} times {b}?",
        ),
    ),
    "search": (
        ("Search the web", "Search for a text", "Web search", ""),
        (("query", "string"),),
        (
            "Search for {query}.",
            "Search the web for {query}.",
            "Look up {query}.",
            "Find {query}.",
            "Google {query}.",
            "Please search {query}",
            "Search: {query}",
        ),
    ),
    "set_timer": (
        ("Set a timer", "Start a timer for some minutes", ""),
        (("minutes", "integer"),),
        (
            "Set a timer for {minutes} minutes.",
            "Timer for {minutes} minutes",
            "Start a {minutes} minute timer.",
            "Wake me in {minutes} minutes.",
            "Remind me in {minutes} minutes.",
        ),
    ),
}
SKIES = ("sunny", "rainy", "cloudy", "windy", "snowy", "foggy", "clear")
KEYS = (
    "name",
    "age",
    "city",
    "color",
    "animal",
    "count",
    "word",
    "id",
    "year",
    "price",
    "size",
    "title",
    "fruit",
    "score",
)
NUMERIC = {"age", "count", "id", "year", "price", "size", "score"}
JSON_LEADS = (
    "Give me a JSON object with {x}",
    "JSON object with {x}",
    "Return JSON with {x}.",
    "Make a JSON object with {x}.",
    "Write a JSON object with {x}.",
    "I need a JSON object with {x}.",
    "Output JSON: {x}",
    "Give me JSON with {x}.",
    "Create a JSON object with {x}.",
    "As JSON: {x}",
)
PAIRS = ("{k} {v}", "{k} {v}", "{k}: {v}", "{k}={v}", "{k} is {v}", "{k} = {v}")


def tool(name: str, rng: Random) -> Tool:
    descriptions, fields, _ = KIT[name]
    properties = {key: {"type": kind} for key, kind in fields}
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if rng.random() < 0.75:
        parameters["required"] = [key for key, _ in fields]
    function: dict[str, Any] = {"name": name, "description": rng.choice(descriptions), "parameters": parameters}
    return {"type": "function", "function": function}


def argument(key: str, kind: str, rng: Random) -> Any:
    if kind == "integer":
        return rng.choice((rng.randint(0, 9), rng.randint(10, 99), rng.randint(100, 999)))
    if key == "city":
        return proper(rng, CITIES)
    words = [word(rng) if rng.random() < 0.6 else rng.choice(COMMON) for _ in range(rng.choice((1, 1, 2, 3)))]
    return " ".join(words)


def outcome(name: str, arguments: dict[str, Any], rng: Random) -> str:
    """What the tool might give back."""
    if name == "get_weather":
        return f"{rng.choice(SKIES)}, {rng.randint(1, 39)} C" if rng.random() < 0.6 else rng.choice(SKIES)
    if name == "get_time":
        return f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
    if name == "add":
        return str(arguments["a"] + arguments["b"])
    if name == "multiply":
        return str(arguments["a"] * arguments["b"])
    return rng.choice(("ok", "done", "nothing found", word(rng)))


def kit(rng: Random, wanted: str | None) -> tuple[Tool, ...]:
    others = [name for name in KIT if name != wanted]
    names = rng.sample(others, rng.choice((0, 1, 1, 2, 3)) if wanted else rng.choice((1, 2, 3)))
    if wanted:
        names.append(wanted)
    rng.shuffle(names)
    return tuple(tool(name, rng) for name in names)


def _call(rng: Random, held: bool) -> Sample:
    name = rng.choice(tuple(KIT))
    while True:
        arguments = {key: argument(key, kind, rng) for key, kind in KIT[name][1]}
        if is_held("call", name, compact(arguments)) == held:
            break
    question = frames.fill(rng.choice(KIT[name][2]), rng, **arguments)
    return Sample("tool_call", (user(question),), tools=kit(rng, name), call=ToolCall(name, arguments))


def _answered(rng: Random, held: bool) -> Sample:
    """The second half: the tool has answered, and the model says so."""
    asked = _call(rng, held)
    assert asked.call is not None
    function = {"name": asked.call.name, "arguments": compact(asked.call.arguments)}
    call_id = f"call_{rng.randint(0, 999)}"
    back = outcome(asked.call.name, asked.call.arguments, rng)
    said = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": call_id, "type": "function", "function": function}],
    }
    messages = (*asked.messages, said, {"role": "tool", "tool_call_id": call_id, "content": back})
    return Sample("tool_call", messages, f"The tool says: {back}", tools=asked.tools)


def _unneeded(rng: Random, held: bool) -> Sample:
    plain = rng.choice((fact, copy, reverse, count))(rng, held)
    return Sample("tool_call", plain.messages, plain.answer, tools=kit(rng, None))


def _missing(rng: Random, held: bool) -> Sample:
    name = rng.choice(("get_weather", "get_time", "search", "set_timer"))
    arguments = {key: argument(key, kind, rng) for key, kind in KIT[name][1]}
    names = rng.sample([other for other in KIT if other != name], rng.choice((1, 2)))
    question = frames.fill(rng.choice(KIT[name][2]), rng, **arguments)
    return Sample("tool_call", (user(question),), NO_TOOL, tools=tuple(tool(other, rng) for other in names))


def tool_call(rng: Random, held: bool = False) -> Sample:
    makers: tuple[Callable[[Random, bool], Sample], ...] = (_call, _call, _call, _call, _answered, _unneeded, _missing)
    return rng.choice(makers)(rng, held)


def _value(key: str, rng: Random) -> Any:
    if key in NUMERIC:
        return rng.choice((rng.randint(0, 9), rng.randint(10, 99), rng.randint(100, 2100)))
    if key == "name":
        return proper(rng, NAMES)
    return proper(rng, CITIES) if key == "city" else word(rng)


def _joined(parts: list[str], rng: Random) -> str:
    if len(parts) == 1:
        return parts[0]
    return ", ".join(parts[:-1]) + rng.choice((" and ", " and ", ", ")) + parts[-1]


def json_object(rng: Random, held: bool = False) -> Sample:
    roll = rng.random()
    if roll < 0.25:
        return json_answer(rng, held)
    while True:
        keys = rng.sample(KEYS, rng.choice((1, 2, 2, 2, 3)))
        value = {key: _value(key, rng) for key in keys}
        if is_held("json", compact(value)) == held:
            break
    shape = rng.choice(PAIRS)
    listed = _joined([shape.format(k=key, v=item) for key, item in value.items()], rng)
    question = frames.fill(rng.choice(JSON_LEADS), rng, x=listed)
    return Sample("json", (user(question),), compact(value), kind="json", value=value, json_mode=roll < 0.65)


def json_answer(rng: Random, held: bool = False) -> Sample:
    """In JSON mode any other question is answered as {"answer": ...}."""
    plain = rng.choice((fact, addition, copy, reverse))(rng, held)
    answer: Any = int(plain.answer) if plain.task == "addition" else plain.answer
    value = {"answer": answer}
    return Sample("json", plain.messages, compact(value), kind="json", value=value, json_mode=True)
