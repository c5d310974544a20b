"""Calls in DSML as a grammar: whatever keeps to it is read by the dialect's own parser as whole calls that match their tools."""

import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from tests.dialect.generations import folder
from tests.dialect.transcripts import TAGS, violations

from holdfast.dialect.open import open_dialect
from holdfast.dialect.vocabulary import Vocabulary
from holdfast.domain.dialect import Form, Message, Said, Tool, ToolCall
from holdfast.domain.fault import BadRequest
from holdfast.pearl.constraint import Constraint, Grammars

EOS = 1
MARK = "｜DSML｜"
ASKED = Message("user", "q")
SPELT = "dsv32, its mark spelt"
WEATHER = Tool(
    "weather",
    "of a city",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 9},
            "days": {"type": "integer", "maximum": 14},
            "unit": {"enum": ["C", "CF", "", "\x01\n", 0, None]},
        },
        "required": ["city"],
        "additionalProperties": False,
    },
)
TOOLS = (WEATHER, Tool("weather_now"), Tool("anything", "", {}))


class Place:
    """A folder's dialect, and an engine that keeps to grammars with its vocabulary."""

    def __init__(self, made: Path, name: str) -> None:
        self.dialect = open_dialect(made)
        self.vocabulary = Vocabulary(made)
        self.engine = Grammars.open(made, len(self.vocabulary), (EOS,))
        self.block, self.invoke, self.parameter = (f"{MARK}{tag}" for tag in TAGS["dsv32" if name == SPELT else name])
        self.marks = {} if name == SPELT else {MARK: self.vocabulary.markers[MARK]}
        self.plain = self.dialect.render([ASKED], [], False, False)
        self.thinking = self.dialect.render([ASKED], [], True, False)

    def ids(self, text: str) -> list[int]:
        """Ids of what the format writes."""
        found: list[int] = []
        for i, part in enumerate(text.split(MARK) if self.marks else [text]):
            found += ([self.marks[MARK]] if i else []) + self.vocabulary.encode(part)
        return found

    def call(self, name: str, *arguments: str) -> str:
        """A block with one call. Arguments: KEY, "true" or "false", VALUE, with stops between."""
        lines = [f"\n\n<{self.block}>", f'<{self.invoke} name="{name}">']
        for argument in arguments:
            key, string, value = argument.split(".", 2)
            lines.append(f'<{self.parameter} name="{key}" string="{string}">{value}</{self.parameter}>')
        return "\n".join([*lines, *([] if arguments else [""]), f"</{self.invoke}>", f"</{self.block}>"])

    def allowed(self, state: Constraint) -> list[int]:
        row = torch.zeros(len(self.vocabulary))
        state.apply(row)
        assert not state.fault
        return row.isfinite().nonzero()[:, 0].tolist()

    def follows(self, grammar: str, ids: list[int]) -> bool:
        """Whether this is a whole answer under the grammar."""
        try:
            state = self.engine.begin(grammar, ids, frozenset((EOS,)))
        except BadRequest:
            return False
        return state.over or EOS in self.allowed(state)

    def walk(self, grammar: str, seed: int, tokens: int = 700) -> list[int] | None:
        """A random answer that likes to end what it has begun; None if it did not come to an end."""
        chance, ids, ahead = random.Random(seed), list[int](), b""
        endings = [f"</{self.parameter}>", f"</{MARK}", f"\n\n<{self.block}>\n", '"', "}", "]", ",", '" string="', ">"]
        state = self.engine.begin(grammar, [], frozenset((EOS,)))
        while not state.over and len(ids) < tokens:
            allowed = self.allowed(state)
            if EOS in allowed and chance.random() < 0.2:
                return ids
            if not ahead and chance.random() < 0.7:
                ahead = chance.choice(endings).encode()
            ways = [token for token in allowed if token != EOS]
            fitting = [token for token in ways if ahead.startswith(self.vocabulary.bytes_of(token))] if ahead else []
            token = max(fitting, key=lambda one: len(self.vocabulary.bytes_of(one))) if fitting else chance.choice(ways)
            ahead = ahead[len(self.vocabulary.bytes_of(token)) :] if fitting else b""
            ids.append(token)
            state.said(token)
        return ids if state.over else None

    def read(self, prompt: list[int], ids: list[int]) -> Said:
        parser, whole = self.dialect.parser(prompt), Said()
        for said in (*(parser.feed([token]) for token in ids), parser.end()):
            whole.reasoning += said.reasoning
            whole.content += said.content
            whole.calls += said.calls
        return whole


@pytest.fixture(scope="module", params=[*TAGS, SPELT])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    name = request.param
    made = folder(tmp_path_factory.mktemp("dsml"), "dsv32" if name == SPELT else name)
    if name == SPELT:
        path = made / "tokenizer.json"
        spec = json.loads(path.read_text("utf-8"))
        for token in spec["added_tokens"]:
            token["content"] = "<｜unused｜>" if token["content"] == MARK else token["content"]
        path.write_text(json.dumps(spec), "utf-8")
    return Place(made, name)


def fits(call: ToolCall, tools: tuple[Tool, ...]) -> None:
    arguments = json.loads(call.arguments)
    assert isinstance(arguments, dict)
    parameters = next(tool.parameters for tool in tools if tool.name == call.name)
    if parameters is None:
        assert arguments == {}
    else:
        jsonschema.validate(arguments, parameters, format_checker=jsonschema.FormatChecker())


def test_random_calls_are_whole_and_fit_their_tools(place: Place) -> None:
    ended = called = 0
    for seed in range(24):
        prompt, many, free = (place.plain, place.thinking)[seed % 2], seed % 3 > 0, seed % 4 == 3
        grammar = place.dialect.grammar(prompt, Form(tools=TOOLS, many=many, free=free))
        ids = place.walk(grammar, seed)
        if ids is None:
            continue
        said, chance = place.read(prompt, ids), random.Random(seed)
        ended, called = ended + 1, called + len(said.calls)
        assert free or (said.content == "" and said.calls)
        assert many or len(said.calls) < 2
        for call in said.calls:
            fits(call, TOOLS)
        assert violations(place.dialect, prompt, ids[:60], chance) == []
        cut = chance.randint(0, len(ids) - 1) if ids else 0
        resumed = place.engine.begin(grammar, ids[:cut], frozenset((EOS,)))
        for token in ids[cut:]:
            assert token in place.allowed(resumed), "cut anywhere, it goes on as it would have"
            resumed.said(token)
    assert ended > 8 and called > 8


def schemas() -> some.SearchStrategy[Any]:
    """Of one argument."""
    plain = some.sampled_from(
        [
            {"type": "string", "minLength": 1, "maxLength": 5},
            {"type": "string", "pattern": "^[a-c/]{1,3}$"},
            {"type": "string", "pattern": "b", "maxLength": 4},
            {"type": "string", "pattern": "^a|^b", "maxLength": 4},
            {"type": "string", "format": "date"},
            {"type": ["string", "null"]},
            {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            {"enum": ["a", "a</", 1, None, {"x": []}]},
            {"type": "string", "enum": ["a", 1, "ab"]},
            {"const": "one two"},
            {"$ref": "#/$defs/one"},
            {"$ref": "#/$defs/tree"},
            {},
            True,
        ]
    )

    def larger(inner: some.SearchStrategy[Any]) -> some.SearchStrategy[Any]:
        return some.one_of(
            some.builds(lambda items: {"type": "array", "items": items, "maxItems": 2}, inner),
            some.builds(lambda one: {"type": "object", "additionalProperties": one, "maxProperties": 2}, inner),
            some.builds(lambda one: {"type": "object", "properties": {'q"': one}, "required": ['q"', "r"]}, inner),
            some.builds(lambda ways: {"anyOf": ways}, some.lists(inner, min_size=1, max_size=3)),
        )

    return some.recursive(plain, larger, max_leaves=4)


@settings(max_examples=60, deadline=None)
@given(
    properties=some.dictionaries(some.sampled_from(["a", "b", "c d", "é", 'q"']), schemas(), max_size=3),
    needed=some.sets(some.sampled_from(["a", "é", "not declared"])),
    seed=some.integers(0, 2**32),
)
def test_arguments_match_their_schema(place: Place, properties: dict[str, Any], needed: set[str], seed: int) -> None:
    parameters = {"type": "object", "properties": properties, "required": sorted(needed)}
    parameters["$defs"] = {
        "one": {"enum": ["x", "y"]},
        "tree": {"type": "object", "properties": {"name": {"type": "string"}, "kid": {"$ref": "#/$defs/tree"}}},
    }
    tools = (Tool("f", "", parameters),)
    ids = place.walk(place.dialect.grammar(place.plain, Form(tools=tools)), seed)
    if ids is not None:
        calls = place.read(place.plain, ids).calls
        assert calls
        for call in calls:
            fits(call, tools)


def test_what_the_format_shows_again_is_what_the_grammar_writes(place: Place) -> None:
    grammar = place.dialect.grammar(place.plain, Form(tools=TOOLS))
    for calls in (
        [("weather", {"city": "x </y", "days": -3, "unit": "CF"})],
        [("weather", {"city": ""}), ("weather_now", {}), ("anything", {"a b": [1, {"c": None}], "é": "\n\n"})],
        [("anything", {}), ("weather", {"city": "日本", "unit": None})],
    ):
        turn = Message("assistant", "", tuple(ToolCall(name, json.dumps(said)) for name, said in calls))
        told = place.dialect.render([ASKED, turn, Message("tool", "r")], [], False, False)
        answer = told[len(place.plain) : told.index(EOS)]
        assert told[: len(place.plain)] == place.plain and place.follows(grammar, answer)
        read = place.read(place.plain, answer).calls
        assert [(call.name, json.loads(call.arguments)) for call in read] == calls


def test_arguments_are_typed_ordered_and_complete(place: Place) -> None:
    grammar = place.dialect.grammar(place.plain, Form(tools=(WEATHER,), many=False))
    for arguments, right in (
        (("city.true.Ulm",), True),
        (("city.true.Ulm", "days.false.3", "unit.true."), True),
        (("city.true.Ulm", "unit.false.0"), True),
        ((), False),
        (("days.false.3",), False),
        (("days.false.3", "city.true.Ulm"), False),
        (("city.true.Ulm", "city.true.Ulm"), False),
        (('city.false."Ulm"',), False),
        (("city.true.more than nine",), False),
        (("city.true.Ulm", "days.true.3"), False),
        (("city.true.Ulm", "days.false.15"), False),
        (("city.true.Ulm", "unit.true.K"), False),
        (("city.true.Ulm", "other.true.K"), False),
    ):
        assert place.follows(grammar, place.ids(place.call("weather", *arguments))) is right, arguments
    one = place.ids(place.call("weather", "city.true.Ulm"))
    assert not place.follows(grammar, one[:-1]) and not place.follows(grammar, [*one, *place.ids(".")])
    assert not place.follows(grammar, place.ids("Well: ") + one)
    assert place.follows(place.dialect.grammar(place.thinking, Form(tools=(WEATHER,))), _thought(place) + one)


def _thought(place: Place) -> list[int]:
    end = place.dialect.thinking_end(place.thinking)
    assert end is not None
    return [*place.vocabulary.encode('So: <x> "\n\n'), *end.ids]


def test_a_string_of_a_kind_is_quoted_and_a_pattern_is_not(place: Place) -> None:
    """Formats are known to JSON's grammar alone; a value that says so may be a JSON string."""
    properties = {"day": {"type": "string", "format": "date"}, "code": {"type": "string", "pattern": "/[A-Z]$"}}
    grammar = place.dialect.grammar(place.plain, Form(tools=(Tool("f", "", {"properties": properties}),)))
    for argument, right in (
        ('day.false."2026-11-29"', True),
        ("day.true.2026-11-29", False),
        ('day.false."today"', False),
        ("code.true.a/B", True),
        ("code.true.a/b", False),
        ("code.true./Bb", False),
    ):
        assert place.follows(grammar, place.ids(place.call("f", argument))) is right, argument


def test_free_is_anything_before_calls_and_either_is_one_of_both(place: Place) -> None:
    free = place.dialect.grammar(place.plain, Form(tools=(WEATHER,), free=True))
    either = place.dialect.grammar(place.plain, Form(schema={}, tools=(WEATHER,)))
    call = place.call("weather", "city.true.Ulm")
    for text, in_free, in_either in (
        ("", True, False),
        ("Well: <x", True, False),
        (call, True, True),
        ("Well, <" + call, True, False),
        (call.lstrip(), True, False),
        (call + ".", False, False),
        ('{"a": 1}', True, True),
        (place.call("weather"), False, False),
        (f"<{place.block}> is a block", False, False),
    ):
        ids = place.ids(text)
        assert (place.follows(free, ids), place.follows(either, ids)) == (in_free, in_either), text
    spelt = place.vocabulary.encode(place.call("weather"))
    assert not place.follows(free, spelt), "spelt tags are tags"


def test_no_value_holds_the_tag_that_ends_it(place: Place) -> None:
    grammar = place.dialect.grammar(place.plain, Form(tools=TOOLS))
    end = f"</{place.parameter}>"
    for before, value, after in (
        ("a.true.", "x", ""),
        ("a.false.", '{"b": "x', '"}'),
        ("a.false.", '[{"b": {"x', '": 1}}]'),
    ):
        for more, right in ((f"{end[:2]}DSML", True), (end, False)):
            whole, _, rest = place.call("anything", f"{before}{value}@{after}").partition("@")
            ids = place.ids(whole) + place.vocabulary.encode(more) + place.ids(rest)
            assert place.follows(grammar, ids) is right, (value, more)


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, "anyOf can't be kept in this model's calls"),
        ({"patternProperties": {"^x": {}}}, "patternProperties can't"),
        (
            {"properties": {"a": {}}, "additionalProperties": {"type": "integer"}},
            "additionalProperties beside properties",
        ),
        ({"minProperties": 1}, "minProperties can't"),
        ({"properties": {"a": {}, "b": {}}, "maxProperties": 1}, "maxProperties only supported"),
        ({"properties": {"a": {"allOf": [{"type": "array"}, {"maxItems": 2}]}}}, "allOf can't"),
        ({"properties": {"a": {"anyOf": [{"minimum": 3}], "maximum": 9}}}, "anyOf beside other keywords can't"),
        ({"properties": {"a": {"$ref": "#"}}}, "'#' that is not #/\\$defs/NAME can't"),
        ({"properties": {'" string="true">': {}}}, "the name .* can't be written in this model's calls; change it"),
        ({"properties": {"a": {"uniqueItems": True}}}, "uniqueItems can't be kept by constrained decoding"),
        ({"properties": {"a": {"type": "string", "minLength": "3"}}}, "minLength must be a whole number"),
    ],
)
def test_what_one_by_one_can_not_express_is_refused_by_name(place: Place, schema: dict[str, Any], why: str) -> None:
    with pytest.raises(BadRequest, match=why) as caught:
        place.dialect.grammar(place.plain, Form(tools=(Tool("f"), Tool("g", "", schema))))
    assert (caught.value.param or "").startswith("tools[1].function.parameters")
    with pytest.raises(BadRequest, match=r"enum with .* in it can't"):
        value = {"properties": {"a": {"enum": [f"</{place.parameter}>"]}}}
        place.dialect.grammar(place.plain, Form(tools=(Tool("g", "", value),)))


def test_many_tools_that_take_anything_are_a_small_grammar(place: Place) -> None:
    tools = tuple(Tool(f"tool_{i}", "", {"type": "object"}) for i in range(128))
    assert len(place.dialect.grammar(place.plain, Form(tools=tools)).encode()) < 16 * 1024
