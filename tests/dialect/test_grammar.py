"""The form of an answer as a grammar: whatever keeps to it is read by the dialect's own parser, and matches its schema."""

import json
import random
from pathlib import Path
from shutil import copytree
from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from holdfast.dialect.grammar import GRAMMAR_BYTES_MAX, Grammars, fenced
from holdfast.dialect.open import open_dialect
from holdfast.dialect.parser import Markers
from holdfast.dialect.template import TemplateDialect
from holdfast.dialect.vocabulary import Vocabulary
from holdfast.domain.dialect import Form, Said, Tool
from holdfast.domain.fault import BadRequest
from holdfast.pearl.constraint import Constraint
from holdfast.pearl.constraint import Grammars as Engine

SHIPPED = Path(__file__).parents[2] / "src" / "holdfast" / "shipped" / "pearl"
DIALECT = open_dialect(SHIPPED)
VOCABULARY = Vocabulary(SHIPPED)
MARKS = Markers.of(VOCABULARY)
ENGINE = Engine.open(SHIPPED, len(VOCABULARY), (1,))
CLOSING = {n for n in range(len(VOCABULARY)) if set(VOCABULARY.bytes_of(n)) & set(b'"}],`')} | set(range(16))
PLAIN, THINKING, LOOSE = (
    [0, 3, 100, 4, 6],
    [0, 3, 100, 4, 5],
    [0, 3, 100, 4],
)  # how a prompt ends: closed, opened, neither
WEATHER = Tool(
    "weather",
    "of a city",
    {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 9}, "days": {"type": "integer", "maximum": 14}},
        "required": ["city"],
        "additionalProperties": False,
    },
)
TOOLS = (WEATHER, Tool("weather_now"), Tool("anything", "", {}))


@pytest.fixture(scope="module")
def r1(tmp_path_factory: pytest.TempPathFactory) -> TemplateDialect:
    """Pearl's vocabulary behind a template with R1's habits: fenced arguments, reasoning that the model opens itself."""
    folder = copytree(SHIPPED, tmp_path_factory.mktemp("r1") / "model")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}{% if false %}```json{% endif %}<think>\n")
    dialect = open_dialect(folder)
    assert isinstance(dialect, TemplateDialect)
    return dialect


def walk(grammar: str, seed: int, tokens: int = 400) -> list[int] | None:
    """A random answer under a grammar that likes to end; None if it did not."""
    chance, ids = random.Random(seed), list[int]()
    state = ENGINE.begin(grammar, [], frozenset((1,)))
    while not state.over and len(ids) < tokens:
        allowed = allowed_by(state)
        closing = [token for token in allowed if token in CLOSING]
        token = chance.choice(closing if closing and chance.random() < 0.7 else allowed)
        if token == 1:
            return ids
        ids.append(token)
        state.said(token)
    return ids if state.over else None


def allowed_by(state: Constraint) -> list[int]:
    row = torch.zeros(len(VOCABULARY))
    state.apply(row)
    assert not state.fault
    return row.isfinite().nonzero()[:, 0].tolist()


def read(parser: Any, ids: list[int]) -> Said:
    """What an answer says, told token by token."""
    whole = Said()
    for said in (*(parser.feed([token]) for token in ids), parser.end()):
        whole.reasoning += said.reasoning
        whole.content += said.content
        whole.calls += said.calls
    return whole


def follows(grammar: str, ids: list[int]) -> bool:
    """Whether this is a whole answer under the grammar."""
    try:
        state = ENGINE.begin(grammar, ids, frozenset((1,)))
    except BadRequest:
        return False
    return state.over or 1 in allowed_by(state)


def check_calls(said: Said, many: bool) -> None:
    assert said.content == ""
    assert len(said.calls) == 1 or (many and said.calls)
    by_name = {tool.name: tool for tool in TOOLS}
    for call in said.calls:
        arguments = json.loads(call.arguments)
        assert isinstance(arguments, dict)
        parameters = by_name[call.name].parameters
        if parameters is None:
            assert arguments == {}
        else:
            jsonschema.validate(arguments, parameters)


@settings(max_examples=60, deadline=None)
@given(seed=some.integers(0, 2**32), many=some.booleans(), prompt=some.sampled_from([PLAIN, THINKING]))
def test_calls_are_whole_and_fit_their_tools(seed: int, many: bool, prompt: list[int]) -> None:
    ids = walk(DIALECT.grammar(prompt, Form(tools=TOOLS, many=many)), seed)
    if ids is not None:
        assert (MARKS.end_think in ids) is (prompt is THINKING)
        check_calls(read(DIALECT.parser(prompt), ids), many)


@settings(max_examples=60, deadline=None)
@given(seed=some.integers(0, 2**32), many=some.booleans(), prompt=some.sampled_from([PLAIN, THINKING, LOOSE]))
def test_fenced_calls_too(r1: TemplateDialect, seed: int, many: bool, prompt: list[int]) -> None:
    ids = walk(r1.grammar(prompt, Form(tools=TOOLS, many=many)), seed)
    if ids is not None:
        check_calls(read(r1.parser(prompt), ids), many)


def test_more_calls_than_one_only_where_they_are_wanted() -> None:
    encode = VOCABULARY.encode
    call = [MARKS.call_begin, *encode("weather_now"), MARKS.sep, *encode("{}"), MARKS.call_end]
    two = [MARKS.calls_begin, *call, *call, MARKS.calls_end]
    one = [MARKS.calls_begin, *call, MARKS.calls_end]
    for many, ids, right in ((True, two, True), (False, two, False), (True, one, True), (False, one, True)):
        assert follows(DIALECT.grammar(PLAIN, Form(tools=TOOLS, many=many)), ids) is right
    assert not follows(DIALECT.grammar(PLAIN, Form(tools=TOOLS)), [*encode("Well: "), *one])
    assert not follows(DIALECT.grammar(PLAIN, Form(tools=TOOLS)), encode("{}"))


def test_a_schema_and_tools_are_one_or_the_other_and_free_is_anything_before_calls() -> None:
    encode = VOCABULARY.encode
    name, arguments = encode("weather_now"), encode("{}")
    calls = [MARKS.calls_begin, MARKS.call_begin, *name, MARKS.sep, *arguments, MARKS.call_end, MARKS.calls_end]
    either = DIALECT.grammar(PLAIN, Form(schema={}, tools=TOOLS))
    free = DIALECT.grammar(PLAIN, Form(tools=TOOLS, free=True))
    for ids, in_either, in_free in (
        (calls, True, True),
        (encode('{"a": 1}'), True, True),
        (encode("Well: {"), False, True),
        ([*encode("Well: "), *calls], False, True),
        ([*calls, *encode(".")], False, False),
        ([MARKS.calls_begin, MARKS.calls_end], False, False),
        (calls[:-1], False, False),
    ):
        assert (follows(either, ids), follows(free, ids)) == (in_either, in_free)
    assert Grammars(VOCABULARY, Markers(think=5, end_think=6), fenced).write(PLAIN, Form(tools=TOOLS, free=True)) == ""


def test_reasoning_is_free_until_its_mark(r1: TemplateDialect) -> None:
    encode, form = VOCABULARY.encode, Form(schema={"type": "object"})
    grammar = DIALECT.grammar(THINKING, form)
    assert follows(grammar, [*encode('So: {"no": json,\n\n```\né'), MARKS.end_think, *encode('{"a": 1}')])
    assert not follows(grammar, encode('{"a": 1}'))
    assert not follows(grammar, [MARKS.think, MARKS.end_think, *encode("{}")])
    assert not follows(grammar, [MARKS.calls_begin, MARKS.end_think, *encode("{}")])
    assert not follows(grammar, [MARKS.end_think, *encode("\n\n{}")])
    assert follows(r1.grammar(THINKING, form), [*encode("So.\n"), MARKS.end_think, *encode("\n\n"), *encode("{}")])
    assert follows(r1.grammar(LOOSE, form), [MARKS.think, *encode("\nSo."), MARKS.end_think, *encode("{}")])
    assert follows(r1.grammar(LOOSE, form), encode("{}"))
    assert not follows(r1.grammar(PLAIN, form), [MARKS.think, *encode("\nSo."), MARKS.end_think, *encode("{}")])


def test_the_end_that_is_put_to_a_bounded_reasoning_fits(r1: TemplateDialect) -> None:
    for dialect, prompt in ((DIALECT, THINKING), (r1, [*THINKING, *VOCABULARY.encode("\n")]), (r1, THINKING)):
        end = dialect.thinking_end(prompt)
        assert end is not None
        ids = [*VOCABULARY.encode("So I thi"), *end.ids, *VOCABULARY.encode('{"a": 1}')]
        assert follows(dialect.grammar(prompt, Form(schema={})), ids)
        assert read(dialect.parser(prompt), ids).content == '{"a": 1}'


def test_white_space_is_bounded() -> None:
    grammar = DIALECT.grammar(PLAIN, Form(schema={}))
    for text, right in (
        ('{"a": 1, "b": [1, 2]}', True),
        ('{"a":1,"b":[1,2]}', True),
        ('{"a":  1}', False),
        ('{ "a": 1}', False),
        ('{"a": 1}\n', False),
        ('{\n"a": 1}', False),
        ('{"a": "   \\n  two   "}', True),
        ("[1]", False),
    ):
        assert follows(grammar, VOCABULARY.encode(text)) is right, text


def schemas() -> some.SearchStrategy[dict[str, Any]]:
    """Small schemas of what can be kept."""
    plain = some.sampled_from(
        [
            {"type": "string", "maxLength": 5},
            {"type": "string", "pattern": "^[a-c]{1,3}$"},
            {"type": "string", "format": "date"},
            {"type": "integer", "minimum": -3, "maximum": 40},
            {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 700},
            {"type": ["boolean", "null"]},
            {"enum": ["a", 1, None, {"x": []}]},
            {"const": "one two"},
        ]
    )

    def larger(inner: some.SearchStrategy[dict[str, Any]]) -> some.SearchStrategy[dict[str, Any]]:
        properties = some.dictionaries(some.sampled_from(["a", "b", "c d", "é", 'q"']), inner, min_size=1, max_size=3)
        return some.one_of(
            some.builds(lambda items, n: {"type": "array", "items": items, "maxItems": n}, inner, some.integers(0, 3)),
            some.builds(
                lambda fields: {
                    "type": "object",
                    "title": "left out",
                    "properties": fields,
                    "required": list(fields)[:1],
                    "additionalProperties": False,
                },
                properties,
            ),
            some.builds(lambda ways: {"anyOf": ways}, some.lists(inner, min_size=1, max_size=3)),
            some.builds(lambda one: {"$ref": "#/$defs/one", "$defs": {"one": one}}, plain),
        )

    return some.recursive(plain, larger, max_leaves=6)


@settings(max_examples=150, deadline=None)
@given(inner=schemas(), seed=some.integers(0, 2**32))
def test_content_matches_its_schema(inner: dict[str, Any], seed: int) -> None:
    defs = {"one": {"type": "integer", "minimum": 0, "maximum": 9}}
    schema = {"type": "object", "properties": {"x": inner}, "required": ["x"], "$defs": defs}
    ids = walk(DIALECT.grammar(PLAIN, Form(schema=schema)), seed)
    if ids is not None:
        content = read(DIALECT.parser(PLAIN), ids).content
        jsonschema.validate(json.loads(content), schema, format_checker=jsonschema.FormatChecker())


def test_the_same_form_is_the_same_grammar_everywhere() -> None:
    form = Form(tools=TOOLS)
    assert open_dialect(SHIPPED).grammar(THINKING, form) == DIALECT.grammar([9, 5], form)


def test_a_format_without_marks_for_calls_says_so() -> None:
    grammars = Grammars(VOCABULARY, Markers(think=5, end_think=6), fenced)
    with pytest.raises(BadRequest, match="no marks for calls") as caught:
        grammars.write(PLAIN, Form(tools=TOOLS))
    assert caught.value.param == "tool_choice"
    assert follows(grammars.write(PLAIN, Form(schema={})), VOCABULARY.encode("{}"))


def test_a_form_may_not_be_larger_than_an_engine_takes() -> None:
    parameters = {"type": "object", "properties": {f"property_{i:03}": {"type": "string"} for i in range(200)}}
    tools = tuple(Tool(f"tool{i}", "", parameters) for i in range(20))
    with pytest.raises(
        BadRequest, match=rf"^The 20 tools make a grammar of \d+ bytes; the limit is {GRAMMAR_BYTES_MAX}\."
    ) as caught:
        DIALECT.grammar(PLAIN, Form(tools=tools))
    assert caught.value.param == "tools"
