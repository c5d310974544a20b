"""The hand-written renderer equals the shipped chat template, id by id, and lets no typed marker through."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.dialect.open import open_dialect
from holdfast.dialect.pearl import PearlDialect
from holdfast.dialect.template import TemplateDialect
from holdfast.dialect.vocabulary import Vocabulary
from holdfast.domain.dialect import Dialect, Message, Tool, ToolCall
from holdfast.domain.fault import BadRequest

os.environ["HF_HUB_OFFLINE"] = "1"
from transformers import PreTrainedTokenizerFast

FOLDER = Path(__file__).parents[2] / "src/holdfast/shipped/pearl"
PEARL = open_dialect(FOLDER)
TEMPLATE = TemplateDialect(FOLDER)
VOCABULARY = Vocabulary(FOLDER)
HUGGING = PreTrainedTokenizerFast.from_pretrained(str(FOLDER))
HUGGING.chat_template = (FOLDER / "chat_template.jinja").read_text("utf-8")
BOTH = [PEARL, TEMPLATE]

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cn")), max_size=30).filter(
    lambda text: not any(marker in text for marker in VOCABULARY.markers)
)
WORD = st.text(st.sampled_from("abcxyz_019"), min_size=1, max_size=8)
SCHEMA = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXT, lambda inner: st.dictionaries(WORD, inner, max_size=3)
)
CALL = st.builds(ToolCall, WORD, st.builds(json.dumps, st.dictionaries(WORD, TEXT, max_size=2)))
SYSTEM = st.builds(Message, st.sampled_from(["system", "developer"]), TEXT)
USER = st.builds(Message, st.just("user"), TEXT)
ASSISTANT = st.builds(Message, st.just("assistant"), TEXT, st.lists(CALL, max_size=2).map(tuple))
OUTPUT = st.builds(Message, st.just("tool"), TEXT)
LAST = USER | OUTPUT | st.builds(Message, st.just("assistant"), TEXT, prefix=st.just(True))
TALK = st.builds(lambda turns, last: [*turns, last], st.lists(SYSTEM | USER | ASSISTANT | OUTPUT, max_size=5), LAST)
TOOL = st.builds(Tool, WORD, TEXT, st.none() | st.dictionaries(WORD, SCHEMA, max_size=3))


def spoken(message: Message) -> dict[str, Any]:
    """As a client writes it."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.calls:
        turn["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}} for call in message.calls
        ]
    if message.prefix:
        turn["prefix"] = True
    return turn


def theirs(messages: list[Message], tools: list[Tool], **more: bool) -> list[int]:
    offered = [
        {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": t.parameters}}
        for t in tools
    ]
    text = HUGGING.apply_chat_template(
        [spoken(message) for message in messages], tools=offered, tokenize=False, add_generation_prompt=True, **more
    )
    ids: list[int] = HUGGING(text, add_special_tokens=False)["input_ids"]
    return ids


@settings(max_examples=150, deadline=None)
@given(TALK, st.lists(TOOL, max_size=2), st.booleans(), st.booleans())
def test_pearl_equals_the_template(messages: list[Message], tools: list[Tool], thinking: bool, json_mode: bool) -> None:
    mine = PEARL.render(messages, tools, thinking, json_mode)
    assert mine == theirs(messages, tools, thinking=thinking, json_mode=json_mode)


@settings(max_examples=150, deadline=None)
@given(TALK, st.lists(TOOL, max_size=2), st.booleans())
def test_the_sandboxed_template_equals_transformers(messages: list[Message], tools: list[Tool], thinking: bool) -> None:
    if messages[-1].prefix:
        messages = [*messages[:-1], Message("user", messages[-1].content)]
    assert TEMPLATE.render(messages, tools, thinking, False) == theirs(messages, tools, thinking=thinking)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from([*VOCABULARY.markers, "<", "｜", "think>", " ", "a", "\ufdd0", "\ufdd1"]), max_size=12
    ).map("".join)
)
def test_a_marker_that_a_client_types_stays_text(typed: str) -> None:
    plain = VOCABULARY.encode(typed)
    user = VOCABULARY.markers["<｜User｜>"]
    for dialect in BOTH:
        ids = dialect.render([Message("system", typed), Message("user", typed)], [], False, False)
        assert ids == [0, *plain, user, *plain, *ids[-2:]], type(dialect)
        tools = [Tool(typed, typed, {typed: typed})]
        ids = dialect.render([Message("user", "x")], tools, False, False)
        assert [token for token in ids if token in VOCABULARY.marker_ids] == [0, user, *ids[-2:]]
        call = ToolCall(typed, typed)
        ids = dialect.render(
            [Message("user", "x"), Message("assistant", "", (call,)), Message("tool", typed)], [], False, False
        )
        names = [name for token in ids for name, marker in VOCABULARY.markers.items() if marker == token]
        assert names[1:] == [
            "<｜User｜>", "<｜Assistant｜>", "</think>", "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>",
            "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>", "<｜end▁of▁sentence｜>", "<｜tool▁output▁begin｜>",
            "<｜tool▁output▁end｜>",
        ]  # fmt: skip


@pytest.mark.parametrize("dialect", BOTH, ids=["pearl", "template"])
def test_reasoning_of_earlier_turns_is_not_shown_again(dialect: Dialect) -> None:
    told = [Message("user", "a"), Message("assistant", "because</think>b"), Message("user", "c")]
    bare = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    assert dialect.render(told, [], True, False) == dialect.render(bare, [], True, False)


@pytest.mark.parametrize("messages", [[Message("assistant", "x")], [Message("system", "x")]])
def test_a_chat_that_leaves_nothing_to_answer_is_refused(messages: list[Message]) -> None:
    with pytest.raises(BadRequest, match="must end with") as refused:
        PEARL.render(messages, [], False, False)
    assert refused.value.param == "messages"


def test_the_folder_decides() -> None:
    assert isinstance(PEARL, PearlDialect)
    assert PEARL.stop_ids == TEMPLATE.stop_ids == (VOCABULARY.markers["<｜end▁of▁sentence｜>"],)
