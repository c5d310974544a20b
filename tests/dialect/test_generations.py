"""What holds in every dialect: typed marks stay text, opened answers stay open, and a folder says what it lacks."""

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.dialect.generations import EOS, GENERATIONS, SHIPPED, dialect_of, folder

from holdfast.dialect.open import open_dialect
from holdfast.dialect.pearl import PearlDialect
from holdfast.dialect.template import TemplateDialect
from holdfast.dialect.v4 import V4Dialect
from holdfast.dialect.v32 import V32Dialect
from holdfast.dialect.vocabulary import ForeignVocabulary, Vocabulary
from holdfast.domain.dialect import Dialect, Form, Message, Tool, ToolCall
from holdfast.domain.fault import BadRequest

USER = Message("user", "hi")
KNOWN = Vocabulary(SHIPPED)  # its marks come first, those that tests/dialect/generations.py adds stand behind its words
ODD = ["｜DSML｜", "<｜System｜>", "<", "｜", "think>", " ", "a", "\ufdd0", '"', "\\"]
TYPED = st.lists(st.sampled_from([*KNOWN.markers, *ODD]), min_size=1)


@pytest.fixture(scope="module")
def dialects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dialect]:
    place = tmp_path_factory.mktemp("folders")
    return {name: dialect_of(place, name) for name in GENERATIONS}


def text_of(dialect: Dialect, ids: list[int]) -> str:
    return b"".join(map(dialect.bytes_of, ids)).decode()


def marks_of(dialect: Dialect, ids: list[int]) -> list[str]:
    return [dialect.bytes_of(t).decode() for t in ids if t in KNOWN.marker_ids or t >= len(KNOWN)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TYPED.map("".join), st.booleans())
def test_a_typed_mark_stays_text(dialects: dict[str, Dialect], typed: str, thinking: bool) -> None:
    def talk(said: str) -> tuple[list[Message], list[Tool]]:
        call = ToolCall(said, f'{{"{said[:0]}k": {said[:0]}1}}', "c")
        asked = [
            Message("system", said),
            Message("user", said),
            Message("assistant", said + "!", (call,), reasoning=said),
        ]
        done = [Message("tool", said, call_id="c"), Message("assistant", said, reasoning=said)]
        opened = Message("assistant", said + "!", prefix=True, reasoning=said)
        return [*asked, *done, Message("user", said), opened], [Tool(said, said, {said: [said]})]

    for name, dialect in dialects.items():
        mine, plain = (dialect.render(*talk(said), thinking, False, "max") for said in (typed, "x"))
        assert marks_of(dialect, mine) == marks_of(dialect, plain), name


@pytest.mark.parametrize(
    ("name", "tail"),
    [
        ("pearl", "<think>R</think>C"),
        ("r1", "<think>\nR\n</think>\n\nC"),
        ("r1_distill", "<think>\nR\n</think>\n\nC"),
        ("v31", "<think>R</think>C"),
        ("dsv32", "<think>R</think>C"),
        ("dsv4", "<think>R</think>C"),
        ("dsv41", "<think>R</think>C"),
    ],
)
def test_an_opened_answer_goes_on_where_it_stands(dialects: dict[str, Dialect], name: str, tail: str) -> None:
    dialect = dialects[name]

    def opened(content: str, reasoning: str, thinking: bool) -> tuple[str, str]:
        """The prompt's end, and the channel in which the answer begins."""
        last = Message("assistant", content, prefix=True, reasoning=reasoning)
        ids = dialect.render([USER, last], [], thinking, False)
        said = dialect.parser(ids).feed(dialect.encode("\nx"))
        text = text_of(dialect, ids)
        assert EOS not in text and said.reasoning + said.content == "\nx"
        return text.partition("<｜Assistant｜>")[2], "reasoning" if said.reasoning else "content"

    thought = tail.partition("R")[0] + "R"
    assert opened("C", "R", True) == (tail, "content")
    assert opened("", "R", True) == (thought, "reasoning")
    for reasoning in ("", "R"):
        text, channel = opened("C", reasoning, False)
        assert text in ("C", "</think>C") and channel == "content"


def test_reasoning_is_shown_again_where_the_format_does(dialects: dict[str, Dialect]) -> None:
    call = ToolCall("f", "{}", "c")
    told = [USER, Message("assistant", "", (call,), reasoning="because"), Message("tool", "1", call_id="c")]
    tools = [Tool("f")]
    shows = {
        name: "because" in text_of(dialect, dialect.render(told, tools, True, False))
        for name, dialect in dialects.items()
    }
    assert shows == {name: name.startswith("dsv") for name in GENERATIONS}
    later = [*told, Message("assistant", "one", reasoning="so"), USER]
    shows = {
        name: "because" in text_of(dialect, dialect.render(later, tools, True, False))
        for name, dialect in dialects.items()
    }
    assert shows == {name: name.startswith("dsv4") for name in GENERATIONS}


def test_tools_and_wishes_are_told_where_the_template_is_silent(dialects: dict[str, Dialect]) -> None:
    tool = Tool("get_weather", "Says how warm it is.", {"type": "object"})
    for name, dialect in dialects.items():
        text = text_of(dialect, dialect.render([Message("developer", "Be kind."), USER], [tool], False, True))
        assert text.index("Be kind.") < text.index("get_weather") < text.index("one JSON object"), name


def test_the_thinking_ends_as_it_began(dialects: dict[str, Dialect]) -> None:
    for name, dialect in dialects.items():
        end = dialect.thinking_end(dialect.render([USER], [], True, False))
        assert (end is None) == (name == "r1_distill")  # it opens its thinking itself
        assert end is None or text_of(dialect, list(end.ids)) == ("\n</think>\n\n" if name == "r1" else "</think>")


def test_effort_is_a_prefix_where_a_format_has_one(dialects: dict[str, Dialect]) -> None:
    def prompt(name: str, effort: str, thinking: bool = True) -> str:
        return text_of(dialects[name], dialects[name].render([USER], [], thinking, False, effort))

    assert "Effort: 50 " in prompt("dsv41", "low") and "Effort: 100 " in prompt("dsv41", "max")
    assert prompt("dsv41", "") == prompt("dsv41", "high") != prompt("dsv41", "low")
    assert "Reasoning Effort" in prompt("dsv4", "max") and "Reasoning Effort" not in prompt("dsv4", "low")
    for name in GENERATIONS:
        assert prompt(name, "max", thinking=False) == prompt(name, "", thinking=False)


@pytest.mark.parametrize("name", ["dsv32", "dsv4", "dsv41", "pearl"])
def test_a_chat_that_leaves_nothing_to_answer_is_refused(dialects: dict[str, Dialect], name: str) -> None:
    for messages in ([USER, Message("assistant", "x")], [Message("system", "x")]):
        with pytest.raises(BadRequest, match="must end with"):
            dialects[name].render(messages, [], False, False)


def test_results_need_calls(dialects: dict[str, Dialect]) -> None:
    with pytest.raises(BadRequest, match=r"messages\[1\] is a tool's result without a call"):
        dialects["dsv32"].render([USER, Message("tool", "1")], [], False, False)


def test_dsml_is_held_to_json_and_to_calls(dialects: dict[str, Dialect]) -> None:
    prompt = dialects["dsv4"].render([USER], [], False, False)
    assert "%json" in dialects["dsv4"].grammar(prompt, Form(schema={}))
    assert "invoke name=" in dialects["dsv4"].grammar(prompt, Form(tools=(Tool("f"),)))


def test_the_folder_decides(dialects: dict[str, Dialect]) -> None:
    kinds = {name: type(dialect) for name, dialect in dialects.items()}
    assert kinds == {
        "pearl": PearlDialect, "r1": TemplateDialect, "r1_distill": TemplateDialect, "v31": TemplateDialect,
        "dsv32": V32Dialect, "dsv4": V4Dialect, "dsv41": V4Dialect,
    }  # fmt: skip


def test_a_folder_that_does_not_say_how_to_speak_is_refused_with_the_fix(tmp_path: Path) -> None:
    made = folder(tmp_path, "dsv32")
    (made / "config.json").write_text('{"model_type": "deepseek_v32"}')
    encoder = made / "encoding/encoding_dsv32.py"
    words = encoder.read_text("utf-8")
    encoder.write_text("TOOLS = 1")
    with pytest.raises(ValueError, match="has no text TOOLS_SYSTEM_TEMPLATE"):
        open_dialect(made)
    encoder.write_text("def (")
    with pytest.raises(ValueError, match="is not Python"):
        open_dialect(made)
    encoder.write_text(words, "utf-8")
    encoder.rename(made / "encoding/encoding_dsv9.py")
    with pytest.raises(ValueError, match="no dialect here"):
        open_dialect(made)
    (made / "encoding/encoding_dsv9.py").unlink()
    with pytest.raises(ValueError, match="deepseek_v32 without a chat template: put encoding/"):
        open_dialect(made)
    encoder.write_text(words, "utf-8")
    shutil.copy(SHIPPED / "tokenizer.json", made)
    assert isinstance(open_dialect(made), V32Dialect)  # ｜DSML｜ may be plain text
    encoder.rename(made / "encoding/encoding_dsv4.py")
    (made / "encoding/encoding_dsv4.py").write_text(
        'TOOLS_TEMPLATE = "{tool_schemas}"\nSYSTEM_SP_TOKEN = "<｜System｜>"\n'
    )
    with pytest.raises(ForeignVocabulary, match="lacks <｜System｜>"):
        open_dialect(made)


def test_an_encoder_is_read_and_never_run(tmp_path: Path) -> None:
    made = folder(tmp_path, "dsv4")
    with (made / "encoding/encoding_dsv4.py").open("a") as encoder:
        encoder.write(f"\nopen({str(tmp_path / 'trace')!r}, 'w')\nraise SystemExit\n")
    assert isinstance(open_dialect(made), V4Dialect) and not (tmp_path / "trace").exists()
