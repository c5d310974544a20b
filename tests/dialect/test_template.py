"""A foreign folder: its own template, tokenizer and markers; nothing in it can reach out of the sandbox."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from holdfast.dialect.open import open_dialect
from holdfast.dialect.template import TemplateDialect
from holdfast.dialect.vocabulary import ForeignVocabulary, Vocabulary
from holdfast.domain.dialect import Message, Said, ThinkingEnd, Tool
from holdfast.domain.fault import BadRequest

SHIPPED = Path(__file__).parents[2] / "src/holdfast/shipped/pearl"
VOCABULARY = Vocabulary(SHIPPED)
THINKER = """{%- for m in messages -%}
{%- if m.content == 'nothing' %}{{ raise_exception('say something') }}{% endif -%}
{%- if loop.first %}{{ bos_token }}{% endif -%}
{%- if m.role == 'user' %}<｜User｜>{{ m.content }}
{%- elif m.role == 'assistant' %}<｜Assistant｜>{{ m.content.split('</think>')[-1] }}{{ eos_token }}
{%- else %}{{ m.content }}{% endif -%}
{%- endfor -%}
{%- if tools %}{% for t in tools %}{{ t | tojson }}{% endfor %}{% endif -%}
{%- if add_generation_prompt %}<｜Assistant｜><think>
{% endif -%}"""


def folder(place: Path, template: str = THINKER, **tokenizer: Any) -> Path:
    """A model folder with this template, kept where R1 keeps its own."""
    spec = json.loads((SHIPPED / "tokenizer.json").read_text("utf-8")) | tokenizer
    (place / "tokenizer.json").write_text(json.dumps(spec), "utf-8")
    settings = {
        "chat_template": template,
        "bos_token": {"content": "<｜begin▁of▁sentence｜>"},
        "eos_token": "<｜end▁of▁sentence｜>",
    }
    (place / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    (place / "generation_config.json").write_text('{"eos_token_id": [1, 9]}', "utf-8")
    return place


def text_of(ids: list[int]) -> str:
    return b"".join(map(VOCABULARY.bytes_of, ids)).decode()


def test_its_template_its_stops_and_its_way_to_begin_thinking(tmp_path: Path) -> None:
    dialect = open_dialect(folder(tmp_path))
    assert isinstance(dialect, TemplateDialect) and dialect.stop_ids == (1, 9)
    ids = dialect.render([Message("user", "Hi")], [], True, False)
    assert text_of(ids) == "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜><think>\n"
    parser = dialect.parser(ids)
    answer = [*VOCABULARY.encode("\nhm"), VOCABULARY.markers["</think>"], *VOCABULARY.encode("\n\nyes")]
    assert parser.feed(answer) == Said("hm", "yes")


def test_thinking_is_ended_as_its_own_prompts_begin_it(tmp_path: Path) -> None:
    """R1's template breaks the line after the mark, V3.1's does not; an answer that begins with no thinking has no end of it."""
    asked, mark = [Message("user", "Hi")], VOCABULARY.markers["</think>"]
    dialect = open_dialect(folder(tmp_path))
    end = dialect.thinking_end(dialect.render(asked, [], True, False))
    assert end == ThinkingEnd(mark, (*VOCABULARY.encode("\n"), mark, *VOCABULARY.encode("\n\n")))
    parser = dialect.parser(dialect.render(asked, [], True, False))
    assert parser.feed([*VOCABULARY.encode("hm"), *end.ids, *VOCABULARY.encode("yes")]) == Said("hm\n", "yes")
    bare = open_dialect(folder(tmp_path, THINKER.replace("<think>\n", "<think>")))
    assert bare.thinking_end(bare.render(asked, [], True, False)) == ThinkingEnd(mark, (mark,))
    plain = open_dialect(folder(tmp_path, THINKER.replace("<think>\n", "")))
    assert plain.thinking_end(plain.render(asked, [], True, False)) is None


def test_an_opened_answer_is_continued_where_it_stands(tmp_path: Path) -> None:
    dialect = open_dialect(folder(tmp_path))
    ids = dialect.render([Message("user", "Hi"), Message("assistant", "It is", prefix=True)], [], False, False)
    assert text_of(ids).endswith("<｜User｜>Hi<｜Assistant｜>It is")


def test_json_mode_is_asked_for_in_words_and_tools_are_shown(tmp_path: Path) -> None:
    dialect = open_dialect(folder(tmp_path))
    tool = Tool("add", "<b>sums</b>", {"é": ["<think>", 1, None]})
    text = text_of(dialect.render([Message("user", "Hi")], [tool], False, True))
    assert text.startswith("<｜begin▁of▁sentence｜>Answer with one JSON object.<｜User｜>Hi")
    assert '"description": "<b>sums</b>", "parameters": {"é": ["<think>", 1, null]}' in text


def test_what_the_template_refuses_is_a_bad_request(tmp_path: Path) -> None:
    dialect = open_dialect(folder(tmp_path))
    with pytest.raises(BadRequest, match="say something"):
        dialect.render([Message("user", "nothing")], [], False, False)
    every = "".join(map(chr, range(0xFDD0, 0xFDF0)))
    with pytest.raises(BadRequest, match="U\\+FDD0"):
        dialect.render([Message("user", every)], [], False, False)


@pytest.mark.parametrize(
    "attack",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_a_template_that_reaches_out_is_refused(tmp_path: Path, attack: str) -> None:
    dialect = open_dialect(folder(tmp_path, attack))
    with pytest.raises(BadRequest):
        dialect.render([Message("user", "a")], [], False, False)


def test_added_tokens_that_swallow_white_space_do(tmp_path: Path) -> None:
    spec = json.loads((SHIPPED / "tokenizer.json").read_text("utf-8"))
    for token in spec["added_tokens"]:
        if token["content"] == "<｜Assistant｜>":
            token["lstrip"] = True
    dialect = open_dialect(
        folder(tmp_path, "<｜User｜>{{ messages[0].content }}<｜Assistant｜>", added_tokens=spec["added_tokens"])
    )
    ids = dialect.render([Message("user", "Hi  \n")], [], False, False)
    assert text_of(ids) == "<｜User｜>Hi<｜Assistant｜>"


def test_a_folder_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    with pytest.raises(ForeignVocabulary, match="byte-level"):
        Vocabulary(folder(tmp_path, decoder={"type": "Metaspace"}))
    (tmp_path / "tokenizer_config.json").write_text("{}")
    shutil.copy(SHIPPED / "tokenizer.json", tmp_path)
    with pytest.raises(ValueError, match="chat_template"):
        open_dialect(tmp_path)
