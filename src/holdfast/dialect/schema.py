"""Which JSON schemas a grammar can keep, and what of them goes into it.

Annotations and words that JSON Schema does not know are left out, as they assert nothing. A keyword that asserts something which
no grammar can keep (`not`, `uniqueItems`, ...) is refused by name: an answer under a schema always matches all of it.
"""

import json
import math
from decimal import Decimal
from typing import Any

from holdfast.domain.fault import BadRequest

SCHEMA_BYTES_MAX = 16 * 1024  # of one schema, written compactly without its annotations
DEPTH_MAX = 32
PROPERTIES_MAX = 256  # of one object
COST_MAX = 256  # of all schemas of a form: pairs of alternatives that are multiplied out, 0.17 ms each
STEPS_PER_WAY = 16  # multiples of 4096 cost as much as all pairs

_PLAIN = frozenset((
    "type", "const", "enum", "required", "minItems", "maxItems", "minProperties", "maxProperties", "minLength",
    "maxLength", "pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "multipleOf", "$ref",
))  # fmt: skip
_ONE = frozenset(("items", "additionalItems", "additionalProperties"))
_LISTS = frozenset(("anyOf", "oneOf", "allOf", "prefixItems"))
_NAMED = ("properties", "patternProperties", "$defs", "definitions")
_REFUSED = frozenset((
    "not", "if", "then", "else", "contains", "minContains", "maxContains", "dependentRequired",
    "dependentSchemas", "dependencies", "propertyNames", "unevaluatedProperties", "unevaluatedItems",
    "uniqueItems", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef",
))  # fmt: skip
_KINDS: dict[str, tuple[type, ...]] = {
    "type": (str, list), "enum": (list,), "required": (list,), "pattern": (str,), "minLength": (int,), "maxLength": (int,),
    "minItems": (int,), "maxItems": (int,), "minProperties": (int,), "maxProperties": (int,),
}  # fmt: skip
_CALLED = {str: "a string", list: "a list", int: "a whole number"}
_FORMATS = ("date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid")


class Reader:
    """Reads the schemas of one form. What is dear to compile is counted over all of them."""

    def __init__(self) -> None:
        self._left = COST_MAX
        self._field = ""
        self._root: dict[str, Any] = {}

    def read(self, schema: object, field: str) -> dict[str, Any]:
        """The schema without what asserts nothing. `field` is where it stands in the request.

        Raises:
            BadRequest: it is none, too large, too deep or too dear, or a keyword in it can't be kept; names field and keyword.
        """
        if not isinstance(schema, dict):
            raise BadRequest(f"{field} must be a JSON schema, which is an object.", field)
        self._field = field
        left = self._kept(schema, "", DEPTH_MAX)
        self._root = left if isinstance(left, dict) else {}
        size = len(json.dumps(left, ensure_ascii=False, separators=(",", ":")).encode())
        if size > SCHEMA_BYTES_MAX:
            why = f"{field} is {size} bytes of JSON schema without its descriptions; the limit is {SCHEMA_BYTES_MAX}."
            raise BadRequest(why, field)
        self._weigh(self._root, {})
        return self._root

    def _kept(self, schema: object, path: str, depth: int) -> dict[str, Any] | bool:
        if isinstance(schema, bool):
            return schema
        field, where = self._field, f"{self._field}{path}"
        if not isinstance(schema, dict):
            raise BadRequest(f"{where} must be a JSON schema: an object, true or false.", field)
        if not depth:
            raise BadRequest(f"{field} is nested deeper than {DEPTH_MAX} schemas; flatten it, or use $ref.", field)
        left: dict[str, Any] = {}
        for word, value in schema.items():
            if word in _PLAIN:
                left[word] = _counted(word, value)
                self._check(word, left[word], schema, where)
            elif word in _NAMED:
                if not isinstance(value, dict):
                    raise BadRequest(f"{where}.{word} must be an object of JSON schemas.", field)
                if len(value) > PROPERTIES_MAX:
                    why = f"{where}.{word} has {len(value)} members; the limit is {PROPERTIES_MAX}."
                    raise BadRequest(why, field)
                left[word] = {name: self._kept(one, f"{path}.{word}.{name}", depth - 1) for name, one in value.items()}
            elif word in _LISTS or (word in _ONE and isinstance(value, list)):
                if not isinstance(value, list):
                    raise BadRequest(f"{where}.{word} must be a list of JSON schemas.", field)
                left[word] = [self._kept(one, f"{path}.{word}[{i}]", depth - 1) for i, one in enumerate(value)]
            elif word in _ONE:
                left[word] = self._kept(value, f"{path}.{word}", depth - 1)
            elif word in _REFUSED and not (word == "uniqueItems" and value is False):
                raise BadRequest(f"{where}.{word} can't be kept by constrained decoding; leave {word} out.", field)
        return left

    def _check(self, word: str, value: object, schema: dict[str, Any], where: str) -> None:
        kinds = _KINDS.get(word)
        if kinds is not None and (isinstance(value, bool) or not isinstance(value, kinds)):
            raise BadRequest(f"{where}.{word} must be {' or '.join(_CALLED[kind] for kind in kinds)}.", self._field)
        if word == "required" and isinstance(value, list) and not all(isinstance(name, str) for name in value):
            raise BadRequest(f"{where}.required must list names.", self._field)
        if word == "$ref" and not (isinstance(value, str) and value.startswith("#")):
            raise BadRequest(f"{where}.$ref must point into the schema itself: #/$defs/NAME.", self._field)
        if word == "format" and schema.get("type") in (None, "string") and value not in _FORMATS:
            why = f"{where}.format {value!r} can't be kept; leave it out, or use pattern. Known are {', '.join(_FORMATS)}."
            raise BadRequest(why, self._field)
        if word == "multipleOf":
            self._pay(_steps(value) // STEPS_PER_WAY, f"{where}.multipleOf {value!r} is too large")

    def _pay(self, ways: int, what: str) -> None:
        self._left -= ways
        if self._left < 0:
            raise BadRequest(f"{what} to be kept by constrained decoding; make the schema simpler.", self._field)

    def _weigh(self, schema: object, known: dict[str, int]) -> int:
        """How many alternatives a schema holds, at any depth. Those that stand beside each other (all must match) are
        multiplied out when it is compiled: that is paid for. `known` has the weight of each $ref that was followed."""
        if isinstance(schema, list):
            return sum(self._weigh(one, known) for one in schema)
        if not isinstance(schema, dict):
            return 0
        beside = [self._weigh(one, known) for one in schema.get("allOf", ())]
        for word in ("anyOf", "oneOf"):
            beside.append(sum(max(1, self._weigh(one, known)) for one in schema.get(word, ())))
        if "$ref" in schema:
            beside.append(self._follow(schema["$ref"], known))
        inside = [schema.get(word) for word in (*_ONE, "prefixItems")]
        inside += [one for word in _NAMED[:2] for one in schema.get(word, {}).values()]
        beside.append(sum(self._weigh(one, known) for one in inside))
        factors = [weight for weight in beside if weight > 1]
        ways = math.prod(factors)
        if len(factors) > 1:
            why = f"{self._field} has alternatives beside alternatives (allOf, anyOf, $ref): {ways} pairs are too many"
            self._pay(ways, why)
        return min(max(beside) if len(factors) < 2 else ways, COST_MAX)

    def _follow(self, ref: str, known: dict[str, int]) -> int:
        if ref not in known:
            known[ref] = 0  # while it is followed: a schema that holds itself
            target: Any = self._root
            for name in ref.removeprefix("#").strip("/").split("/"):
                target = target.get(name) if isinstance(target, dict) and name else target
            known[ref] = self._weigh(target, known)
        return known[ref]


def _counted(word: str, value: object) -> object:
    """3.0 is a whole number in JSON schemas."""
    return int(value) if isinstance(value, float) and value.is_integer() and _KINDS.get(word) == (int,) else value


def _steps(value: object) -> int:
    """How many states an automaton needs to tell multiples of this number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        return 0
    number = Decimal(repr(value))
    return int(number.scaleb(-min(0, int(number.normalize().as_tuple().exponent))))
