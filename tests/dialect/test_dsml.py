"""Calls in DSML: JSON as it comes, names whole, and what is no call stays text."""

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.dialect.generations import dialect_of
from tests.dialect.transcripts import TAGS, joined

from holdfast.domain.dialect import CallPart, Dialect, Message, Said, ToolCall

ASKED = [Message("user", "q")]
VALUES: list[Any] = [
    "",
    "x < y",
    '"\\\n',
    "日本 👩‍🚀",
    "</｜DSML｜invoke>",
    1,
    -2.5,
    None,
    True,
    [1, {"a": "</b>"}],
    {"k": []},
]


def spoken(name: str, calls: list[tuple[str, dict[str, Any]]]) -> str:
    """As the model of this generation writes it."""
    block, invoke, parameter = (f"｜DSML｜{tag}" for tag in TAGS[name])
    lines = [f"<{block}>"]
    for called, arguments in calls:
        lines.append(f'<{invoke} name="{called}">')
        for key, value in arguments.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            lines.append(
                f'<{parameter} name="{key}" string="{str(isinstance(value, str)).lower()}">{text}</{parameter}>'
            )
        lines.append(f"</{invoke}>")
    return "\n".join([*lines, f"</{block}>"])


def heard(dialect: Dialect, text: str, thinking: bool = False) -> list[Said]:
    parser = dialect.parser(dialect.render(ASKED, [], thinking, False))
    return [*(parser.feed([token]) for token in dialect.encode(text)), parser.end()]


@pytest.mark.parametrize("name", TAGS)
def test_arguments_are_json_as_they_come_and_whole_in_the_end(tmp_path: Path, name: str) -> None:
    dialect = dialect_of(tmp_path, name)
    calls = [("add", {f"k{i}": value for i, value in enumerate(VALUES)}), ("nothing", {}), ("日本", {"a b": "c"})]
    said = heard(dialect, "Let me see.\n\n" + spoken(name, calls) + "\n\ndone")
    _, content, found, _ = joined(said)
    assert content == "Let me see.\n\ndone"
    assert [(called, json.loads(arguments)) for called, arguments in found] == calls
    parts = [part for one in said for part in one.parts]
    assert parts[0] == CallPart(0, "add") and len([part for part in parts if part.index == 0]) > 20


@pytest.mark.parametrize("name", TAGS)
def test_what_a_renderer_writes_a_parser_reads(tmp_path: Path, name: str) -> None:
    dialect = dialect_of(tmp_path, name)
    chance = Random(3)
    for _ in range(100):
        arguments = {f"k{i}": chance.choice(VALUES[:4] + VALUES[5:]) for i in range(chance.randint(0, 4))}
        call = ToolCall("f", json.dumps(arguments, ensure_ascii=False))
        told = [*ASKED, Message("assistant", "c", (call,)), Message("tool", "r"), *ASKED]
        ids = dialect.render(told, [], False, False)
        text = b"".join(map(dialect.bytes_of, ids)).decode()
        answer = text[text.index("c\n\n<") : text.index("<｜end▁of▁sentence｜>")]
        assert joined(heard(dialect, answer))[1:3] == ("c", [("f", call.arguments)])


@pytest.mark.parametrize("name", TAGS)
def test_half_a_call_is_handed_over_and_a_block_without_one_is_text(tmp_path: Path, name: str) -> None:
    dialect = dialect_of(tmp_path, name)
    whole = spoken(name, [("add", {"a": 1, "b": "two"})])
    at = whole.index("two") + 2
    assert joined(heard(dialect, whole[:at]))[1:3] == ("", [("add", '{"a": 1, "b": "tw')])
    assert joined(heard(dialect, whole[: whole.index("add") + 2]))[1:3] == (whole[: whole.index("add") + 2], [])
    block = f"<｜DSML｜{TAGS[name][0]}> is how a block opens"
    assert joined(heard(dialect, block))[1:3] == (block, [])
    closed = spoken(name, [])
    assert joined(heard(dialect, "a\n\n" + closed + "b"))[1] == "a" + closed + "b"
    assert joined(heard(dialect, whole, thinking=True)) == (whole, "", [], [])  # nobody calls inside the reasoning


def test_a_mark_of_its_own_is_read_as_its_text(tmp_path: Path) -> None:
    """DeepSeek's vocabularies write ｜DSML｜ as one token."""
    dialect = dialect_of(tmp_path, "dsv32")
    told = [*ASKED, Message("assistant", "", (ToolCall("f", '{"a": 1}'),)), Message("tool", "r")]
    ids = dialect.render(told, [], False, False)
    mark = next(token for token in ids if dialect.bytes_of(token) == "｜DSML｜".encode())
    assert ids.count(mark) == 6
    end = [dialect.bytes_of(token) for token in ids].index("<｜end▁of▁sentence｜>".encode())
    parser = dialect.parser([])
    said = [parser.feed([token]) for token in ids[ids.index(mark) - 2 : end]]
    assert joined(said)[2] == [("f", '{"a": 1}')]


def test_one_token_of_content_is_handed_on_at_once(tmp_path: Path) -> None:
    dialect = dialect_of(tmp_path, "dsv4")
    parser = dialect.parser(dialect.render(ASKED, [], False, False))
    said = [parser.feed([token]).content for token in dialect.encode("one two three")]
    assert all(said) and "".join(said) == "one two three"
