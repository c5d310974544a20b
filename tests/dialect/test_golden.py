"""Prompts equal what DeepSeek's own templates and programs wrote (golden/write.py ran them)."""

from pathlib import Path

import pytest

from holdfast.domain.dialect import Dialect
from tests.dialect.generations import TEMPLATES, dialect_of, golden
from tests.dialect.golden.write import CASES, OPENED, THOUGHT, TOOLED

MESSAGES = {label: (messages, tools) for label, messages, tools in [*CASES, *TOOLED, *OPENED, THOUGHT]}


def text_of(dialect: Dialect, ids: list[int]) -> str:
    return b"".join(map(dialect.bytes_of, ids)).decode()


@pytest.mark.parametrize("name", [*TEMPLATES, "dsv32", "dsv4", "dsv41"])
def test_prompts_equal_the_released_ones(tmp_path: Path, name: str) -> None:
    dialect = dialect_of(tmp_path, name)
    for case in golden(name):
        messages, tools = MESSAGES[case["case"]]
        mine = text_of(dialect, dialect.render(messages, tools, case["thinking"], False, case["effort"]))
        assert mine == case["text"], (name, case["case"], case["thinking"], case["effort"])
