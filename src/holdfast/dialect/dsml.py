"""Calls marked in text, as V3.2 and V4 write them: a block of invocations, each parameter in a tag of its own.

    <｜DSML｜function_calls>
    <｜DSML｜invoke name="add">
    <｜DSML｜parameter name="a" string="false">1</｜DSML｜parameter>
    </｜DSML｜invoke>
    </｜DSML｜function_calls>

Arguments become JSON as they come. A block that calls nothing is text; what stands between the tags of one that does is nothing.
"""

import json
import re
from enum import IntEnum

from msgspec import Struct

from holdfast.dialect.calls import Calls
from holdfast.dialect.parser import DSML, MarkerParser
from holdfast.domain.dialect import Said

BEGINNINGS = (f"<{DSML}", f"</{DSML}")  # of any tag
Piece = tuple[bool, str]  # the format's own text (markers in it count), or what somebody said


class Tags(Struct, frozen=True):
    """What a generation calls its tags."""

    block: str
    invoke: str
    parameter: str

    def opening(self, name: str) -> str:
        return f"<{DSML}{name}"

    def closing(self, name: str) -> str:
        return f"</{DSML}{name}>"


def written(tags: Tags, calls: list[tuple[str, str]]) -> list[Piece]:
    """Names and arguments as a model would have written them, in the bytes of DeepSeek's own encoders."""
    pieces: list[Piece] = [(True, f"\n\n{tags.opening(tags.block)}>\n")]
    for i, (name, arguments) in enumerate(calls):
        pieces += [(True, ("\n" if i else "") + tags.opening(tags.invoke) + ' name="'), (False, name), (True, '">\n')]
        for j, (key, value) in enumerate(_parameters(arguments).items()):
            said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            string = "true" if isinstance(value, str) else "false"
            pieces += [
                (True, ("\n" if j else "") + tags.opening(tags.parameter) + ' name="'),
                (False, key),
                (True, f'" string="{string}">'),
                (False, said),
                (True, tags.closing(tags.parameter)),
            ]
        pieces.append((True, "\n" + tags.closing(tags.invoke)))
    pieces.append((True, "\n" + tags.closing(tags.block)))
    return pieces


def _parameters(arguments: str) -> dict[str, object]:
    """Arguments that are no JSON object are one parameter."""
    try:
        found = json.loads(arguments)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"arguments": arguments}


class State(IntEnum):
    OUTSIDE = 0
    BLOCK = 1
    INVOKE = 2
    VALUE = 3


def _partly(tag: str) -> str:
    """A pattern for the tag or any beginning of it."""
    pattern = ""
    for char in reversed(tag):
        pattern = f"(?:{re.escape(char)}{pattern})?"
    return pattern


class Patterns:
    """The tags of one generation, ready to be looked for. No name holds the beginning of a tag: so a tag that is not whole when
    another one begins never will be, and what is found does not hang on how the text came."""

    def __init__(self, tags: Tags) -> None:
        name = r' name="(?P<{}>(?:(?!</?' + DSML + r').)*?)"'
        invoke = re.escape(tags.opening(tags.invoke)) + name.format("name") + ">"
        parameter = (
            re.escape(tags.opening(tags.parameter)) + name.format("key") + r'(?: string="(?P<string>true|false)")?>'
        )
        end, done = re.escape(tags.closing(tags.block)), re.escape(tags.closing(tags.invoke))
        self.open = tags.opening(tags.block) + ">"
        self.value_end = tags.closing(tags.parameter)
        self.block = re.compile(f"(?P<invoke>{invoke})|(?P<end>{end})", re.DOTALL)
        inside = f"(?P<parameter>{parameter})|(?P<done>{done})|(?P<invoke>{invoke})|(?P<end>{end})"
        self.invoke = re.compile(inside, re.DOTALL)
        self.may_open = re.compile(r"\n{0,2}" + _partly(self.open) + r"\Z")
        self.may_end = re.compile(_partly(self.value_end) + r"\Z")


class CallReader:
    """Content, as it comes, to text and calls."""

    def __init__(self, patterns: Patterns) -> None:
        self._patterns = patterns
        self._state = State.OUTSIDE
        self._held = ""
        self._looked = 0  # no tag begins before this place in it
        self._calls = Calls()
        self._called = False  # this block has called something
        self._parameters = 0
        self._string = False

    @property
    def idle(self) -> bool:
        """Whether it holds nothing back and is in no block."""
        return self._state == State.OUTSIDE and not self._held

    def feed(self, text: str, said: Said) -> None:
        self._held += text
        while self._step(said):
            pass
        self._calls.flush(said)

    def end(self, said: Said) -> None:
        """What was held back is text; half a call is handed over, if its name is whole."""
        if self._state == State.VALUE:
            self._value(self._held)
        elif self._state == State.OUTSIDE:
            said.content += self._held
        elif not self._called:
            said.content += self._patterns.open + self._held
        if self._calls.open:
            self._calls.finish(said)
        self._held, self._state = "", State.OUTSIDE

    def _step(self, said: Said) -> bool:
        """One tag further; whether there may be another."""
        if self._state == State.OUTSIDE:
            return self._outside(said)
        if self._state == State.VALUE:
            return self._in_value()
        return self._in_block(said)

    def _outside(self, said: Said) -> bool:
        before, tag, after = self._held.partition(self._patterns.open)
        if not tag:
            tail = self._patterns.may_open.search(before)
            sure = tail.start() if tail else len(before)
            said.content += before[:sure]
            self._held = before[sure:]
            return False
        said.content += before.removesuffix("\n").removesuffix("\n")
        self._enter(State.BLOCK, after)
        self._called = False
        return True

    def _in_block(self, said: Said) -> bool:
        pattern = self._patterns.block if self._state == State.BLOCK else self._patterns.invoke
        found = pattern.search(self._held, self._looked)
        if found is None:
            at = max(self._held.rfind(beginning) for beginning in BEGINNINGS)
            self._looked = at if at >= 0 else max(len(self._held) - len(BEGINNINGS[1]), 0)
            return False
        kind, held = found.lastgroup, self._held
        rest = held[found.end() :]
        if kind in ("done", "invoke", "end") and self._calls.open:
            self._calls.add("}" if self._parameters else "{}")
            self._calls.finish(said)
        if kind == "end":
            if not self._called:
                said.content += self._patterns.open + held[: found.end()]
            self._enter(State.OUTSIDE, rest)
        elif kind == "done":
            self._enter(State.BLOCK, rest)
        elif kind == "invoke":
            self._calls.begin(found["name"])
            self._called, self._parameters = True, 0
            self._enter(State.INVOKE, rest)
        else:
            self._parameter(found["key"], found["string"])
            self._enter(State.VALUE, rest)
        return True

    def _parameter(self, name: str, string: str | None) -> None:
        """Without a word about it, a value is a string."""
        self._string = string != "false"
        key = json.dumps(name, ensure_ascii=False)
        self._calls.add(("{" if not self._parameters else ", ") + key + (': "' if self._string else ": "))
        self._parameters += 1

    def _in_value(self) -> bool:
        value, tag, after = self._held.partition(self._patterns.value_end)
        if not tag:
            tail = self._patterns.may_end.search(value)
            sure = tail.start() if tail else len(value)
            self._value(value[:sure])
            self._held = value[sure:]
            return False
        self._value(value)
        if self._string:
            self._calls.add('"')
        self._enter(State.INVOKE, after)
        return True

    def _value(self, text: str) -> None:
        self._calls.add(json.dumps(text, ensure_ascii=False)[1:-1] if self._string else text)

    def _enter(self, state: State, rest: str) -> None:
        self._state, self._held, self._looked = state, rest, 0


class DsmlParser:
    """Ids to reasoning by marks, and content to calls by tags. `plain` are the tokens' texts that can be no part of a tag."""

    def __init__(self, marks: MarkerParser, patterns: Patterns, plain: list[str | None]) -> None:
        self._marks = marks
        self._plain = plain
        self._reader = CallReader(patterns)
        self._calm = False  # nothing is held back: plain text is content as it stands

    @property
    def reasoning_tokens(self) -> int:
        return self._marks.reasoning_tokens

    def feed(self, ids: list[int]) -> Said:
        if self._calm and len(ids) == 1:
            token = ids[0]
            text = self._plain[token] if token < len(self._plain) else None
            if text is not None:
                return Said("", text)
        heard = self._marks.feed(ids)
        said = Said(heard.reasoning)
        if heard.content:
            self._reader.feed(heard.content, said)
        self._calm = self._reader.idle and self._marks.plain
        return said

    def end(self) -> Said:
        self._calm = False
        heard = self._marks.end()
        said = Said(heard.reasoning)
        self._reader.feed(heard.content, said)
        self._reader.end(said)
        return said


def plain_texts(texts: list[str | None]) -> list[str | None]:
    """The texts that neither are a part of a tag nor stand before one."""
    return [None if text is None or "<" in text or "\n" in text else text for text in texts]
