"""JSON schemas: what of them is kept, and what is refused by field and keyword."""

from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from holdfast.dialect.open import open_dialect
from holdfast.dialect.schema import DEPTH_MAX, PROPERTIES_MAX, SCHEMA_BYTES_MAX, Reader
from holdfast.domain.dialect import Form, Tool
from holdfast.domain.fault import BadRequest

DIALECT = open_dialect(Path(__file__).parents[2] / "src" / "holdfast" / "shipped" / "pearl")
PROMPT = [0, 3, 100, 4, 6]
FIELD = "response_format.json_schema.schema"
TEXT = {"type": "string"}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = dict(TEXT)
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def ways(count: int, name: str) -> dict[str, Any]:
    return {"anyOf": [{"type": "object", "properties": {f"{name}{i}": TEXT}} for i in range(count)]}


def test_annotations_are_left_out_and_order_is_kept() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "T",
        "description": "d",
        "x-guidance": {"lenient": True},
        "strict": True,
        "type": "object",
        "properties": {
            "title": {"type": "string", "description": "a property that is called like an annotation", "default": ""},
            "not": {"items": {"examples": [1], "type": "integer"}, "type": "array", "uniqueItems": False},
        },
        "additionalProperties": {"deprecated": True, "type": "null"},
        "required": ["title"],
    }
    assert list(Reader().read(schema, FIELD).items()) == [
        ("type", "object"),
        ("properties", {"title": TEXT, "not": {"items": {"type": "integer"}, "type": "array"}}),
        ("additionalProperties", {"type": "null"}),
        ("required", ["title"]),
    ]


REFUSED: list[tuple[Any, str]] = [
    (5, f"{FIELD} must be a JSON schema, which is an object."),
    (
        {"properties": {"a": {"not": TEXT}}},
        f"{FIELD}.properties.a.not can't be kept by constrained decoding; leave not out.",
    ),
    ({"anyOf": [TEXT, {"items": TEXT, "uniqueItems": True}]}, f"{FIELD}.anyOf[1].uniqueItems can't be kept"),
    ({"$defs": {"x": {"if": TEXT}}}, f"{FIELD}.$defs.x.if can't be kept"),
    ({"properties": [TEXT]}, f"{FIELD}.properties must be an object of JSON schemas."),
    ({"anyOf": TEXT}, f"{FIELD}.anyOf must be a list of JSON schemas."),
    ({"items": 3}, f"{FIELD}.items must be a JSON schema: an object, true or false."),
    ({"$ref": "https://example.org/x"}, f"{FIELD}.$ref must point into the schema itself: #/$defs/NAME."),
    ({"type": "string", "format": "int32"}, f"{FIELD}.format 'int32' can't be kept; leave it out, or use pattern."),
    (nested(DEPTH_MAX), f"{FIELD} is nested deeper than {DEPTH_MAX} schemas; flatten it, or use $ref."),
    (
        {"enum": ["x" * SCHEMA_BYTES_MAX]},
        f"{FIELD} is 16397 bytes of JSON schema without its descriptions; the limit is 16384.",
    ),
    (
        {"properties": {f"p{i}": TEXT for i in range(PROPERTIES_MAX + 1)}},
        f"{FIELD}.properties has 257 members; the limit is 256.",
    ),
    (
        {"type": "integer", "multipleOf": 99991},
        f"{FIELD}.multipleOf 99991 is too large to be kept by constrained decoding",
    ),
    (
        {"allOf": [ways(4, n) for n in "abcdef"]},
        f"{FIELD} has alternatives beside alternatives (allOf, anyOf, $ref): 4096 pairs",
    ),
    (
        {"$ref": "#/$defs/a", "allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": ways(20, "a")}},
        f"{FIELD} has alternatives beside alternatives (allOf, anyOf, $ref): 400 pairs are too many",
    ),
    # what only the grammar engine can tell
    ({"type": "string", "pattern": "(?=a)b"}, f"{FIELD} can't be kept by constrained decoding: regex parse error"),
    ({"type": "nothing"}, f"{FIELD} can't be kept by constrained decoding: Invalid type: nothing."),
    ({"$ref": "#/$defs/none"}, f"{FIELD} can't be kept by constrained decoding: Pointer '/$defs/none' does not exist."),
    (
        {"oneOf": [{"type": "string", "maxLength": 3}, {"type": "string", "minLength": 2}]},
        f"{FIELD} can't be kept by constrained decoding: oneOf constraints are not supported.",
    ),
    (
        {"type": "integer", "minimum": 5, "maximum": 1},
        f"{FIELD} can't be kept by constrained decoding: Unsatisfiable schema",
    ),
]


@pytest.mark.parametrize(("schema", "why"), REFUSED)
def test_what_can_t_be_kept_is_refused_by_name(schema: Any, why: str) -> None:
    with pytest.raises(BadRequest) as caught:
        DIALECT.grammar(PROMPT, Form(schema=schema))
    assert caught.value.why.startswith(why), caught.value.why
    assert caught.value.param == FIELD


def test_a_tool_is_named_by_its_place() -> None:
    tools = (Tool("a"), Tool("b", "", {"type": "object", "dependentRequired": {"x": ["y"]}}))
    with pytest.raises(BadRequest, match=r"^tools\[1\].function.parameters.dependentRequired can't be kept") as caught:
        DIALECT.grammar(PROMPT, Form(tools=tools))
    assert caught.value.param == "tools[1].function.parameters"
    with pytest.raises(BadRequest, match=r"^tools\[0\].function.parameters.type must be object: arguments are named.$"):
        DIALECT.grammar(PROMPT, Form(tools=(Tool("a", "", {"type": "string"}),)))


def test_what_is_dear_is_counted_over_all_tools() -> None:
    parameters = {"type": "object", "properties": {"n": {"type": "integer", "multipleOf": 1024}}}
    DIALECT.grammar(PROMPT, Form(tools=(Tool("a", "", parameters),) * 4))
    with pytest.raises(BadRequest, match=r"^tools\[4\].function.parameters.properties.n.multipleOf 1024 is too large"):
        DIALECT.grammar(PROMPT, Form(tools=(Tool("a", "", parameters),) * 5))


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [ways(4, n) for n in "abc"]},
        {"type": "number", "multipleOf": 0.01, "minimum": 0, "maximum": 10},
        {
            "$ref": "#/$defs/tree",
            "$defs": {"tree": {"properties": {"next": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]}}}},
        },
        {
            "properties": {"a": {"allOf": [{"$ref": "#/$defs/e"}], "description": "as pydantic writes it"}},
            "$defs": {"e": {"enum": ["x"]}},
        },
        {"oneOf": [{"properties": {"kind": {"const": k}}, "required": ["kind"], "type": "object"} for k in "abc"]},
    ],
)
def test_what_is_usual_is_kept_and_not_dear(schema: dict[str, Any]) -> None:
    began = perf_counter()
    assert "%json" in DIALECT.grammar(PROMPT, Form(schema=schema))
    assert perf_counter() - began < 2
