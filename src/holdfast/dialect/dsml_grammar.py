"""The form of an answer whose calls are DSML, as a grammar: what is called in text is told from what is said in text.

    <｜DSML｜invoke name="add">
    <｜DSML｜parameter name="a" string="false">1</｜DSML｜parameter>

Calls are written in the bytes in which dialect/dsml.py shows them again: declared arguments in their order, one a line. Where
the vocabulary has the mark as a token, tags hold that token; text that spells a tag is read as one all the same, and so it is
kept out of values and of what is said before calls.
"""

import json

from holdfast.dialect.arguments import Argument, Arguments, Taker
from holdfast.dialect.dsml import Patterns, Tags
from holdfast.dialect.grammar import Grammars, arguments_of, json_rule
from holdfast.dialect.parser import DSML, Markers
from holdfast.dialect.schema import Reader
from holdfast.dialect.vocabulary import Vocabulary
from holdfast.domain.dialect import Form
from holdfast.domain.fault import BadRequest

KEY = r"/[^\x22<>\x00-\x1f]+/"  # of an argument that no schema declares


class DsmlGrammars(Grammars):
    """`tags` are the generation's."""

    def __init__(self, vocabulary: Vocabulary, marks: Markers, tags: Tags) -> None:
        super().__init__(vocabulary, marks, None)
        self._mark = marks.dsml
        self._tags = tags
        self._patterns = Patterns(tags)
        self._begin = f"{tags.opening(tags.block)}>"
        self._value_end = tags.closing(tags.parameter)

    @property
    def calling(self) -> bool:
        return True

    def _anything(self) -> str:
        """Text without the beginning of any mark; or up to the block's tag, and then calls. Text without that tag alone could be
        told too, but each mask would take milliseconds at DeepSeek's vocabulary."""
        marked, begin = self._mark >= 0, self._begin
        head, rest = ("<", begin[1:]) if marked else (begin, "")
        rules = (
            f"TEXT | HEAD {self._written(rest)} block",
            f"TEXT: /(?:[^<]|<+[^<{begin[1]}])*<*/",
            f"HEAD: TEXT {_quoted(head)}",
        )
        return "\n".join(rules)

    def _of_tools(self, form: Form, reader: Reader) -> list[str]:
        tags, blank, rules = self._tags, "\n\n", Rules()
        calls = []
        for i, tool in enumerate(form.tools):
            field = f"tools[{i}].function.parameters"
            schema = arguments_of(tool, reader, field)
            json_rule(schema, field)
            opening = f'{tags.opening(tags.invoke)} name="{tool.name}">'
            self._check(opening, tool.name, f"tools[{i}].function.name")
            taken = Taker(schema, field, self._value_end).taken()
            rest = self._declared(taken, rules, field) if taken.others is None else self._others(taken, rules, field)
            calls.append(self._written("\n" + opening) + " " + rest)
        call = rules.name("call", " | ".join(calls))
        end = self._written("\n" + tags.closing(tags.block))
        lines = [f"block: {call}{'+' if form.many else ''} {end}"]
        if not form.free:
            lines.append(f"calls: {self._written(blank + self._begin)} block")
        return lines + rules.lines()

    def _declared(self, taken: Arguments, rules: "Rules", field: str) -> str:
        """In their order, what needn't be said or not. A call that says nothing has an empty line in its place."""
        bare, some = self._closed(True), self._closed(False)  # what follows where nothing was written yet, or something
        for one in reversed(taken.declared):
            said = f"{self._value(one, rules, field)} {some}"
            bare = rules.name("rest", said if one.needed else f"{said} | {bare}")
            some = rules.name("rest", said if one.needed else f"{said} | {some}")
        return bare

    def _others(self, taken: Arguments, rules: "Rules", field: str) -> str:
        """Arguments of any name."""
        if taken.others is None:
            return self._closed(True)
        times = "+" if taken.most is None else f"{{1,{taken.most}}}"
        opening = self._written("\n" + self._tags.opening(self._tags.parameter) + ' name="')
        other = rules.name("other", f"{opening} {rules.name('KEY', KEY)} {self._value(taken.others, rules, field)}")
        return rules.name("rest", f"{other}{times} {self._closed(False)} | {self._closed(True)}")

    def _closed(self, empty: bool) -> str:
        """The end of a call."""
        return self._written(("\n\n" if empty else "\n") + self._tags.closing(self._tags.invoke))

    def _value(self, one: Argument, rules: "Rules", field: str) -> str:
        """How a string is written, and anything else."""
        opening, end, ways = "", self._value_end, list[str]()
        if one.key is not None:
            opening = f'{self._tags.opening(self._tags.parameter)} name="{one.key}'
            self._check(opening + '">', one.key, field)
            opening = "\n" + opening
        if one.bare:
            opened, texts = self._written(opening + '" string="true">'), " | ".join(f"({bare})" for bare in one.bare)
            head, rest = ("</", end[2:]) if self._mark >= 0 else (end, "")
            text = rules.name("TEXT", f"({texts}) {_quoted(head)}")
            ways.append(f"{opened} {text} {self._written(rest)}")
        if one.schema is not None:
            opened = self._written(opening + '" string="false">')
            value = rules.name("json", json_rule(one.schema, field))
            ways.append(f"{opened} {value} {self._written(end)}")
        return rules.name("value", " | ".join(ways))

    def _check(self, opening: str, name: str, field: str) -> None:
        """That a parser reads this name, and whole."""
        found = self._patterns.invoke.match(opening)
        if found is None or found.end() < len(opening) or name not in (found["name"], found["key"]):
            raise BadRequest(f"{field}: the name {name!r} can't be written in this model's calls; change it.", field)

    def _written(self, text: str) -> str:
        """The format's own words, the mark by its id where it has one."""
        parts = text.split(DSML) if self._mark >= 0 else [text]
        return f" <[{self._mark}]> ".join(_quoted(part) if part else "" for part in parts).strip()


class Rules:
    """Rules by their bodies: equal ones are one, so that many tools that take alike make no large grammar."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def name(self, kind: str, body: str) -> str:
        """What stands for it; terminals' kinds are upper case."""
        return self._names.setdefault(body, f"{kind}{len(self._names)}")

    def lines(self) -> list[str]:
        return [f"{name}: {body}" for body, name in self._names.items()]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
