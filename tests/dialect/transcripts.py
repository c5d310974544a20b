"""Answers that no parser wants to see, drawn at random, and what must hold of each: cut anywhere and rebuilt, it is the same."""

import json
from random import Random

from holdfast.dialect.vocabulary import Vocabulary
from holdfast.domain.dialect import Dialect, Message, Parser, Said

WORDS = [
    "a", " the", "\n", "\n\n", "<", "</", "｜", "DSML", "｜DSML｜", "<｜DSML｜", "</｜DSML｜", "function_calls>", "tool_calls>",
    " calls>", 'invoke name="', "invoke>", ' invoke name="', 'parameter name="k" string="true">', 'parameter name="', '">',
    '" string="false">', "parameter>", " parameter>", "```", "`", "\n```json\n", "\n```", "function", "add", "{", '"', "\\",
    '{"a": 1}', "日本", "é", "👩‍🚀", "</think>", "<think>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "\u2028", "\x00", " ", ">",
]  # fmt: skip
NAMES = ["add", "日本", "a b", "function", "f"]
VALUES = ["x < y", '"\\', "</｜DSML｜para", "\n\n", "</｜DSML｜invoke>", "1", "", "👩‍🚀é", "```", "\n```json\n"]
TAGS = {"dsv32": ("function_calls", "invoke", "parameter"), "dsv4": ("tool_calls", "invoke", "parameter")}
TAGS["dsv41"] = (" calls", " invoke", " parameter")


class Drawer:
    """Draws answers for one dialect. `marks`: the ids that mark; text is written with them where a model would."""

    def __init__(self, name: str, dialect: Dialect, vocabulary: Vocabulary) -> None:
        self._name = name
        self._dialect = dialect
        self._marks = vocabulary.markers
        self._broken = [
            t for t in range(len(vocabulary)) if vocabulary.texts[t] is None and t not in vocabulary.marker_ids
        ]
        self._size = len(vocabulary)

    def answer(self, chance: Random) -> list[int]:
        """Up to some 60 tokens of everything."""
        ids: list[int] = []
        while len(ids) < 60 and chance.random() < 0.93:
            kind = chance.random()
            if kind < 0.35:
                ids += self._dialect.encode("".join(chance.choices(WORDS, k=chance.randint(1, 4))))
            elif kind < 0.5:
                ids.append(chance.choice(list(self._marks.values())))
            elif kind < 0.6:
                ids += chance.choices(self._broken, k=chance.randint(1, 3))
            elif kind < 0.65:
                ids.append(chance.randrange(self._size + 3))
            else:
                calls = self._calls(chance)
                ids += calls[chance.randrange(4) if chance.random() < 0.2 else 0 :]
                if chance.random() < 0.4:
                    del ids[-chance.randint(1, max(len(calls) - 1, 1)) :]
        return ids

    def _calls(self, chance: Random) -> list[int]:
        calls = [
            (chance.choice(NAMES), {chance.choice(NAMES): chance.choice(VALUES) for _ in range(chance.randint(0, 2))})
            for _ in range(chance.randint(1, 2))
        ]
        if self._name in TAGS:
            return self._tagged("".join(self._dsml(calls, chance)))
        text = "<｜tool▁calls▁begin｜>"
        for name, arguments in calls:
            said = json.dumps(arguments, ensure_ascii=False)
            head = (
                f"function<｜tool▁sep｜>{name}\n```json\n{said}\n```"
                if chance.random() < 0.5
                else f"{name}<｜tool▁sep｜>{said}"
            )
            text += f"<｜tool▁call▁begin｜>{head}<｜tool▁call▁end｜>" + chance.choice(["", "\n"])
        return self._tagged(text + "<｜tool▁calls▁end｜>")

    def _dsml(self, calls: list[tuple[str, dict[str, str]]], chance: Random) -> list[str]:
        block, invoke, parameter = (f"｜DSML｜{tag}" for tag in TAGS[self._name])
        text = [chance.choice(["", "\n", "\n\n"]), f"<{block}>\n"]
        for name, arguments in calls:
            text.append(f'<{invoke} name="{name}">\n')
            for key, value in arguments.items():
                string = chance.choice([' string="true"', ' string="false"', ""])
                text.append(f'<{parameter} name="{key}"{string}>{value}</{parameter}>\n')
            text.append(f"</{invoke}>\n")
        return [*text, f"</{block}>"]

    def _tagged(self, text: str) -> list[int]:
        """Ids, with markers as markers."""
        ids: list[int] = []
        while text:
            at, mark = min(((text.find(m), m) for m in self._marks if m in text), default=(len(text), ""))
            ids += self._dialect.encode(text[:at])
            ids += [self._marks[mark]] if mark else []
            text = text[at + len(mark) :]
        return ids


def joined(said: list[Said]) -> tuple[str, str, list[tuple[str, str]], list[list[str]]]:
    """What all of it says, by channel."""
    parts: list[list[str]] = []
    for part in (part for one in said for part in one.parts):
        if part.index == len(parts):
            parts.append([part.name, part.arguments])
        else:
            assert part.index == len(parts) - 1 and not part.name, "a part out of its order, or a second name"
            parts[-1][1] += part.arguments
    calls = [(call.name, call.arguments) for one in said for call in one.calls]
    return "".join(one.reasoning for one in said), "".join(one.content for one in said), calls, parts


def violations(dialect: Dialect, prompt: list[int], ids: list[int], chance: Random) -> list[str]:
    """Every way in which a parser of this answer, cut after each token or read in any portions, says something else."""

    def fresh() -> Parser:
        return dialect.parser(prompt)

    unbroken = fresh()
    events = [unbroken.feed([token]) for token in ids]
    events.append(unbroken.end())
    whole, found = joined(events), []
    if [tuple(part) for part in whole[3]] != whole[2]:
        found.append("the parts of the calls are not the calls")
    for k in range(len(ids) + 1):
        rebuilt = fresh()
        if joined([rebuilt.feed(ids[:k])]) != joined(events[:k]):
            found.append(f"fed {k} at once")
        rest = [rebuilt.feed([token]) for token in ids[k:]]
        if rest != events[k:-1] or rebuilt.end() != events[-1]:
            found.append(f"rebuilt after {k}")
        if rebuilt.reasoning_tokens != unbroken.reasoning_tokens:
            found.append(f"reasoning counted after {k}")
    parser, said, at = fresh(), [], 0
    while at < len(ids):
        size = chance.randint(1, 9)
        said.append(parser.feed(ids[at : at + size]))
        at += size
    if joined([*said, parser.end()]) != whole:
        found.append("in portions")
    return found


def prompts(dialect: Dialect) -> list[list[int]]:
    """Answers begin inside the reasoning or outside, or where something was said already."""
    asked = Message("user", "hi")
    opened = [Message("assistant", "", prefix=True, reasoning="hm"), Message("assistant", "It", prefix=True)]
    return [
        dialect.render([asked], [], True, False),
        dialect.render([asked], [], False, False),
        *(dialect.render([asked, message], [], True, False) for message in opened),
    ]
