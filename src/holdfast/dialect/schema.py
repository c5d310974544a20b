"""Which JSON schemas a grammar can keep, and what of them goes into it.

Annotations and words that JSON Schema does not know are left out, as they assert nothing. A keyword that asserts something which
no grammar can keep (`not`, `uniqueItems`, ...) is refused by name: an answer under a schema always matches all of it.
"""

import json
from typing import Any

from holdfast.domain.fault import BadRequest

SCHEMA_BYTES_MAX = 16 * 1024  # of one schema, written compactly without its annotations
DEPTH_MAX = 32

_PLAIN = frozenset((
    "type", "const", "enum", "required", "minItems", "maxItems", "minProperties", "maxProperties", "minLength",
    "maxLength", "pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "multipleOf", "$ref",
))  # fmt: skip
_ONE = frozenset(("items", "additionalItems", "additionalProperties"))
_LISTS = frozenset(("anyOf", "oneOf", "allOf", "prefixItems"))
_NAMED = frozenset(("properties", "patternProperties", "$defs", "definitions"))
_REFUSED = frozenset((
    "not", "if", "then", "else", "contains", "minContains", "maxContains", "dependentRequired",
    "dependentSchemas", "dependencies", "propertyNames", "unevaluatedProperties", "unevaluatedItems",
    "uniqueItems", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef",
))  # fmt: skip
_FORMATS = frozenset((
    "date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri",
))  # fmt: skip


def kept(schema: object, field: str) -> dict[str, Any]:
    """The schema without what asserts nothing. `field` is where it stands in the request.

    Raises:
        BadRequest: it is none, it is too large or too deep, or a keyword in it can't be kept; names field and keyword.
    """
    if not isinstance(schema, dict):
        raise BadRequest(f"{field} must be a JSON schema, which is an object.", field)
    left = _kept(schema, field, "", DEPTH_MAX)
    size = len(json.dumps(left, ensure_ascii=False, separators=(",", ":")).encode())
    if size > SCHEMA_BYTES_MAX:
        why = f"{field} is {size} bytes of JSON schema without its descriptions; the limit is {SCHEMA_BYTES_MAX}."
        raise BadRequest(why, field)
    return left if isinstance(left, dict) else {}


def _kept(schema: object, field: str, path: str, depth: int) -> dict[str, Any] | bool:
    if isinstance(schema, bool):
        return schema
    where = f"{field}{path}"
    if not isinstance(schema, dict):
        raise BadRequest(f"{where} must be a JSON schema: an object, true or false.", field)
    if not depth:
        raise BadRequest(f"{field} is nested deeper than {DEPTH_MAX} schemas; flatten it, or use $ref.", field)
    left: dict[str, Any] = {}
    for word, value in schema.items():
        if word in _PLAIN:
            _check(word, value, schema, (field, where))
            left[word] = value
        elif word in _NAMED:
            if not isinstance(value, dict):
                raise BadRequest(f"{where}.{word} must be an object of JSON schemas.", field)
            left[word] = {name: _kept(one, field, f"{path}.{word}.{name}", depth - 1) for name, one in value.items()}
        elif word in _LISTS or (word in _ONE and isinstance(value, list)):
            if not isinstance(value, list):
                raise BadRequest(f"{where}.{word} must be a list of JSON schemas.", field)
            left[word] = [_kept(one, field, f"{path}.{word}[{i}]", depth - 1) for i, one in enumerate(value)]
        elif word in _ONE:
            left[word] = _kept(value, field, f"{path}.{word}", depth - 1)
        elif word in _REFUSED and not (word == "uniqueItems" and value is False):
            raise BadRequest(f"{where}.{word} can't be kept by constrained decoding; leave {word} out.", field)
    return left


def _check(word: str, value: object, schema: dict[str, Any], names: tuple[str, str]) -> None:
    field, where = names
    if word == "$ref" and not (isinstance(value, str) and value.startswith("#")):
        raise BadRequest(f"{where}.$ref must point into the schema itself: #/$defs/NAME.", field)
    if word == "format" and schema.get("type") in (None, "string") and value not in _FORMATS:
        known = ", ".join(sorted(_FORMATS))
        raise BadRequest(
            f"{where}.format {value!r} can't be kept; known are {known}. Leave it out, or use pattern.", field
        )
