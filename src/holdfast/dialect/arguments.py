"""A tool's parameters, taken apart: DSML writes arguments one by one, a string as it stands and anything else as JSON.

Each becomes what of it is a bare string (a terminal) and what is JSON (a schema). Neither may hold the tag that ends a value, as
that would end it: strings in JSON, at any depth, are kept from the tag's beginning, and objects to the names that they declare.
What this can't express is refused by name.
"""

import json
from typing import Any

from msgspec import Struct

from holdfast.dialect.grammar import complaint_about
from holdfast.domain.fault import BadRequest

SAFE = "^(?:[^<]|<(?:<|/<)*(?:[^</]|/[^<｜]))*(?:<(?:<|/<)*/?)?$"  # does not hold </｜
DEPTH_MAX = 32  # of references that are followed
SPLITS_MAX = 512  # of a tool's schema; what lies beyond is JSON as a whole
_TYPES = ("string", "number", "boolean", "null", "array", "object")
_MIXED = ("$ref", "allOf", "anyOf", "oneOf")
_DEFS = ("$defs", "definitions")
_BARE = ("", ":")  # groups that are no more than groups
_EDGES = "bBAzZGkpPQE"  # escapes that are more than one character, or none


class Argument(Struct, frozen=True):
    """`bare` are terminals, `schema` is JSON's, if any of it is JSON. `key` None stands for any name."""

    key: str | None
    needed: bool
    bare: tuple[str, ...]
    schema: dict[str, Any] | None


class Arguments(Struct, frozen=True):
    """In their order; or, where the schema declares none, `others` of any name, up to `most`."""

    declared: tuple[Argument, ...]
    others: Argument | None = None
    most: int | None = None


class Taker:
    """Takes one tool's schema apart. `end` is the tag that ends a value."""

    def __init__(self, schema: dict[str, Any], field: str, end: str) -> None:
        self._schema = schema
        self._field = field
        self._end = end
        self._left = SPLITS_MAX
        self._any = "any"
        while any(self._any in schema.get(word, ()) for word in _DEFS):
            self._any += "_"
        self._no_end = f"~/(?s:.*){escaped(end)}(?s:.*)/"

    def taken(self) -> Arguments:
        """Raises BadRequest: it can't be taken apart; names the keyword."""
        root: Any = self._schema
        for _ in range(DEPTH_MAX):
            words = set(root) - {"type", *_DEFS}
            if words == {"$ref"}:
                root = self._target(root["$ref"])
            elif words == {"allOf"} and len(root["allOf"]) == 1:
                root = root["allOf"][0]
            else:
                break
            root = root if isinstance(root, dict) else {}
        for word in (*_MIXED, "const", "enum", "patternProperties"):
            if root.get(word):
                raise self._refusal(word)
        declared, others = self._names(root)
        needed, most = root.get("required", ()), root.get("maxProperties")
        if root.get("minProperties", 0) > len(needed):
            raise self._refusal("minProperties")
        if not declared:
            if others is False or most == 0:
                return Arguments(())
            return Arguments((), self._argument(None, others, False), most)
        if most is not None and most < len(declared):
            raise self._refusal("maxProperties")
        found = [self._argument(name, schema, name in needed) for name, schema in declared.items()]
        return Arguments(tuple(one for one in found if one.needed or one.bare or one.schema is not None))

    def _names(self, schema: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        """An object's names with their schemas, required ones that it does not declare too; and the schema of all others."""
        others = schema.get("additionalProperties", True)
        declared = dict(schema.get("properties", {}))
        if declared and others not in (True, False, {}):
            raise self._refusal("additionalProperties", "beside properties ")
        return declared | {name: others for name in schema.get("required", ()) if name not in declared}, others

    def _argument(self, key: str | None, schema: Any, needed: bool) -> Argument:
        bare, ways = self._split(schema, DEPTH_MAX)
        if not ways:
            return Argument(key, needed, tuple(dict.fromkeys(bare)), None)
        kept: dict[str, Any] = {}
        whole = self._guarded(ways[0] if len(ways) == 1 else {"anyOf": ways})
        whole = {word: value for word, value in whole.items() if word not in _DEFS}
        self._collect(whole, kept)
        return Argument(key, needed, tuple(dict.fromkeys(bare)), whole | kept)

    def _split(self, schema: Any, depth: int) -> tuple[list[str], list[Any]]:
        """The terminals of bare strings, and the schemas of the rest."""
        if schema is False:
            return [], []
        said: dict[str, Any] = {} if schema is True else schema
        words = set(said) - set(_DEFS)
        self._left -= 1
        if len(words) == 1 and depth and self._left > 0:
            word = next(iter(words))
            if word == "$ref":
                return self._split(self._target(said[word]), depth - 1)
            if word in ("anyOf", "oneOf") or (word == "allOf" and len(said[word]) == 1):
                ways = [self._split(one, depth - 1) for one in said[word]]
                return [bare for way in ways for bare in way[0]], [one for way in ways for one in way[1]]
        if not words.isdisjoint(_MIXED):
            return [], [said]
        types = [said["type"]] if isinstance(said.get("type"), str) else list(said.get("type", _TYPES))
        if "const" in words or "enum" in words:
            return self._listed(said, words, types)
        bare = self._bare(said) if "string" in types else ""
        rest = [kind for kind in types if kind != "string" or not bare]
        return [bare] if bare else [], [said | {"type": rest}] if rest else []

    def _listed(self, said: dict[str, Any], words: set[str], types: list[str]) -> tuple[list[str], list[Any]]:
        """Values one by one."""
        if not words <= {"const", "type"} and not words <= {"enum", "type"}:
            return [], [said]
        values = [said["const"]] if "const" in words else said["enum"]
        values = [value for value in values if any(_is(value, kind) for kind in types)]
        texts = [value for value in values if isinstance(value, str)]
        if any(self._end in text for text in texts):
            raise self._refusal("enum" if "enum" in words else "const", f"with {self._end} in it ")
        rest = [value for value in values if not isinstance(value, str)]
        return [json.dumps(text, ensure_ascii=False) for text in texts], [{"enum": rest}] if rest else []

    def _bare(self, said: dict[str, Any]) -> str:
        """A terminal for a string as it stands; empty where it has to be JSON."""
        least, most, pattern = said.get("minLength", 0), said.get("maxLength"), said.get("pattern")
        if "format" in said:
            return ""
        if not least and most is None and pattern is None:
            return f"/(?s:.*)/ & {self._no_end}"
        terminal = f"/(?s:.{{{least},{'' if most is None else most}}})/ & {self._no_end}"
        if pattern is None:
            return terminal
        found = _found(pattern)
        terminal = f"/{found}/ & {terminal}"
        return terminal if found and not complaint_about(f"start: TEXT\nTEXT: {terminal}\n") else ""

    def _target(self, ref: str) -> Any:
        word, _, name = ref.removeprefix("#/").partition("/")
        if word not in _DEFS or name not in self._schema.get(word, ()):
            raise self._refusal("$ref", f"{ref!r} that is not #/$defs/NAME ")
        return self._schema[word][name]

    def _guarded(self, schema: Any) -> Any:
        """The same, but that nothing in it can hold the tag that ends a value."""
        if schema is False:
            return False
        if schema is True or not schema:
            return {"$ref": f"#/$defs/{self._any}"}
        words = set(schema) - set(_DEFS)
        mixed = words.intersection(_MIXED)
        if mixed:
            word = mixed.pop()
            if mixed or words - {word, "type"} or (word == "allOf" and len(schema[word]) > 1):
                raise self._refusal(word, "beside other keywords " if word != "allOf" else "")
            if word == "$ref":
                self._target(schema[word])
                return schema
            kind = {"type": schema["type"]} if "type" in schema else {}
            return {"anyOf": [self._guarded(one) for one in schema[word]]} | kind
        if "const" in words or "enum" in words:
            if self._end in json.dumps([schema.get("const"), schema.get("enum")], ensure_ascii=False):
                raise self._refusal("enum", f"with {self._end} in it ")
            return schema
        types = schema.get("type", _TYPES)
        made = {word: value for word, value in schema.items() if word not in _DEFS}
        if "string" in types:
            made |= {"allOf": [{"pattern": SAFE}]} if "pattern" in words else {"pattern": SAFE}
        if "array" in types:
            self._guard_items(made)
        if "object" in types:
            self._guard_names(made)
        return made

    def _guard_items(self, made: dict[str, Any]) -> None:
        for word in ("prefixItems", "items", "additionalItems"):
            if isinstance(made.get(word), list):
                made[word] = [self._guarded(one) for one in made[word]]
            elif word in made or word == "items":
                made[word] = self._guarded(made.get(word, True))
        if isinstance(made["items"], list) and "additionalItems" not in made:
            made["additionalItems"] = self._guarded(True)

    def _guard_names(self, made: dict[str, Any]) -> None:
        if made.pop("patternProperties", None):
            raise self._refusal("patternProperties")
        declared, others = self._names(made)
        if any(self._end in name for name in declared):
            raise self._refusal("properties", f"with {self._end} in a name ")
        made["additionalProperties"] = False
        if declared:
            made["properties"] = {name: self._guarded(one) for name, one in declared.items()}
        elif others is not False:
            made["patternProperties"] = {SAFE: self._guarded(others)}

    def _collect(self, schema: Any, kept: dict[str, Any]) -> None:
        """The definitions that a guarded schema needs."""
        if isinstance(schema, list):
            for one in schema:
                self._collect(one, kept)
        if not isinstance(schema, dict):
            return
        ref = schema.get("$ref")
        if isinstance(ref, str):
            word, _, name = ref.removeprefix("#/").partition("/")
            if name not in kept.setdefault(word, {}):
                kept[word][name] = {}
                kept[word][name] = made = self._any_value() if name == self._any else self._guarded(self._target(ref))
                self._collect(made, kept)
        for word, inner in schema.items():
            if word in ("properties", "patternProperties"):
                self._collect(list(inner.values()), kept)
            elif word not in ("const", "enum", "$ref"):
                self._collect(inner, kept)

    def _any_value(self) -> dict[str, Any]:
        same = {"$ref": f"#/$defs/{self._any}"}
        return {"pattern": SAFE, "items": same, "patternProperties": {SAFE: same}, "additionalProperties": False}

    def _refusal(self, word: str, how: str = "") -> BadRequest:
        why = f"{self._field}: {word} {how}can't be kept in this model's calls, which write arguments one by one; leave it out."
        return BadRequest(why, self._field)


def _is(value: object, kind: str) -> bool:
    if isinstance(value, bool) or value is None:
        return kind == ("null" if value is None else "boolean")
    if isinstance(value, int | float):
        return kind == "number" or (kind == "integer" and value == int(value))
    return kind == ("string" if isinstance(value, str) else "array" if isinstance(value, list) else "object")


def escaped(text: str) -> str:
    """Text as a part of a pattern between slashes."""
    return "".join("\\" + char if char in r"\/.^$|?*+()[]{}-&~#" else char for char in text)


def _found(pattern: str) -> str:
    """A pattern for whole strings in which this one is found, to stand between slashes; empty where anchors or flags stand in
    its middle."""
    body, at, depth, ways, inside = "", 0, 0, False, False
    first, last = pattern.startswith("^"), False
    at = int(first)
    while at < len(pattern):
        char, following = pattern[at], pattern[at + 1 : at + 2]
        if char == "\\":
            if following in _EDGES:
                return ""
            body += "\\" + following
            at += 2
            continue
        if inside:
            inside = char != "]"
        elif char == "$" and at == len(pattern) - 1:
            last = True
            break
        elif char in "^$" or (char == "(" and following == "?" and pattern[at + 2 : at + 3] not in _BARE):
            return ""
        else:
            inside = char == "["
            depth += (char == "(") - (char == ")")
            ways = ways or (char == "|" and not depth)
        body += {"/": "\\/", "\n": "\\n", "\r": "\\r"}.get(char, char)
        at += 1
    if ways and (first or last):
        return ""
    return ("" if first else "(?s:.*)") + f"(?:{body})" + ("" if last else "(?s:.*)")
