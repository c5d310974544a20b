"""What becomes of each field of a chat request: it reaches the Generation, is refused by name, or is dropped by a listed rule."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from doorway import CARD, PEARL, Answer, Says, chat_body, doorway, run

from holdfast.domain.dialect import CallPart, Form, Message, Said, Tool, ToolCall
from holdfast.domain.fault import EngineLost, Expired, NoReplica
from holdfast.domain.request import Chunk, Finish, Generation
from holdfast.gateway.completion_wire import CompletionBody
from holdfast.gateway.openai_fields import IGNORED, REFUSED, REFUSED_COMPLETION
from holdfast.gateway.openai_wire import Ask

API = Path(__file__).parents[2] / "docs/api.md"
ADD: dict[str, Any] = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
SUB: dict[str, Any] = {
    "type": "function",
    "function": {"name": "sub", "parameters": {"type": "object"}},
}


def ask(service: Any, path: str = "/v1/chat/completions", dialect: Any = PEARL, **fields: Any) -> Answer:
    """One chat over a fresh door."""

    async def story() -> Answer:
        async with doorway(service, dialect=dialect) as place, place.client() as client:
            return await client.ask(chat_body(**fields), path)

    return run(story())


class Listening:
    """Pearl's dialect, which writes down what it is asked to render, and which form an answer must have."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.tools: list[Tool] = []
        self.forms: list[Form] = []
        self.effort = ""
        self.json_mode = False

    def __getattr__(self, name: str) -> Any:
        return getattr(PEARL, name)

    def render(
        self, messages: list[Message], tools: list[Tool], thinking: bool, json_mode: bool, effort: str = ""
    ) -> list[int]:
        self.messages, self.tools, self.json_mode, self.effort = messages, tools, json_mode, effort
        return PEARL.render(messages, tools, thinking, json_mode, effort)

    def grammar(self, prompt_ids: list[int], form: Form) -> str:
        self.forms.append(form)
        return f"start: /form {len(self.forms)}/"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions", "/beta/chat/completions"])
def test_chat_is_at_each_of_its_paths(path: str) -> None:
    assert ask(Says("yes"), path).json["choices"][0]["message"]["content"] == "yes"


def test_every_field_on_the_list_of_refusals_is_refused_with_its_sentence() -> None:
    wrong: dict[str, Any] = {"modalities": ["text", "audio"], "repetition_penalty": 1.3}
    for name, sentence in REFUSED.items():
        says = Says()
        answer = ask(says, **{name: wrong.get(name, {"some": "thing"})})
        assert (answer.status, answer.error["message"]) == (400, sentence)
        assert answer.error["param"].startswith(name) and says.asked == []
    assert set(REFUSED) <= set(Ask.__struct_fields__)
    assert set(REFUSED_COMPLETION) <= set(CompletionBody.__struct_fields__)


def test_both_lists_are_in_the_documents() -> None:
    page = API.read_text("utf-8")
    assert [name for name in (*REFUSED, *IGNORED) if f"`{name}`" not in page] == []


def test_their_harmless_values_are_no_reason_to_refuse() -> None:
    fine: dict[str, Any] = {"modalities": ["text"], "repetition_penalty": 1}
    assert ask(Says(), **{name: fine.get(name) for name in REFUSED}).status == 200


def test_fields_that_are_ignored_or_unknown_change_nothing_that_goes_to_an_engine() -> None:
    plain, with_them = Says(), Says()
    ask(plain, seed=1)
    fields = {name: {"deep": ["MARKED"]} for name in (*IGNORED, "x_unheard_of", "top_a")}
    assert ask(with_them, seed=1, name="MARKED", **fields).status == 200
    one, other = plain.asked[0], with_them.asked[0]
    assert one.prompt_ids == other.prompt_ids and one.sampling == other.sampling and one.note != b""
    assert "MARKED" not in repr(other)


def test_the_newer_name_of_max_tokens_wins() -> None:
    says = Says()
    ask(says, max_tokens=5, max_completion_tokens=7)
    assert says.asked[0].max_tokens == 7


@pytest.mark.parametrize(
    ("said", "effort"),
    [
        ("minimal", "low"),
        ("low", "low"),
        ("medium", "high"),
        ("high", "high"),
        ("xhigh", "high"),
        ("max", "max"),
        ("none", ""),
    ],
)
def test_effort_is_told_to_the_dialect_in_deepseeks_steps(said: str, effort: str) -> None:
    listening = Listening()
    assert ask(Says("x</think>y"), dialect=listening, reasoning_effort=said).status == 200
    assert listening.effort == effort


def test_effort_means_nothing_where_thinking_is_off() -> None:
    listening = Listening()
    ask(Says(), dialect=listening, reasoning_effort="max", thinking={"type": "disabled"})
    assert listening.effort == ""


def test_the_user_becomes_a_hint_that_does_not_name_them() -> None:
    says = Says()

    async def story() -> list[Generation]:
        async with doorway(says) as place:
            for fields in ({"user": "kim@example.org"}, {"user_id": "kim@example.org"}, {"user": "lee"}, {}):
                await place.chat(**fields)
        return says.asked

    kim, again, lee, nobody = run(story())
    assert kim.session == again.session != lee.session and nobody.session == ""
    assert "kim" not in repr(kim)
    answer = ask(Says(), user_id="é" * 257)
    assert (answer.status, answer.error["param"]) == (400, "user_id")
    assert "512 bytes" in answer.error["message"]


def test_messages_of_every_role_reach_the_dialect_as_they_are() -> None:
    listening = Listening()
    call = {"id": "call_0", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    messages = [
        {"role": "system", "content": "s", "name": "n"},
        {"role": "developer", "content": [{"type": "text", "text": "d1"}, {"type": "text", "text": "d2"}]},
        {"role": "user", "content": "u", "name": "kim"},
        {"role": "assistant", "content": None, "reasoning_content": "r", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_0", "content": "3"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"role": "user", "content": "again"},
    ]
    assert ask(Says(), dialect=listening, messages=messages).status == 200
    assert listening.messages == [
        Message("system", "s"),
        Message("developer", "d1\nd2"),
        Message("user", "u"),
        Message("assistant", "", (ToolCall("add", '{"a": 1}', "call_0"),), reasoning="r"),
        Message("tool", "3", call_id="call_0"),
        Message("assistant", "no"),
        Message("user", "again"),
    ]


def test_a_prefix_is_continued_and_not_repeated() -> None:
    listening = Listening()
    messages = [
        {"role": "user", "content": "Count."},
        {"role": "assistant", "content": "1, 2,", "prefix": True, "reasoning_content": "easy"},
    ]
    answer = ask(Says(" 3"), "/beta/chat/completions", listening, messages=messages)
    assert answer.json["choices"][0]["message"]["content"] == " 3"
    assert listening.messages[-1] == Message("assistant", "1, 2,", prefix=True, reasoning="easy")


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"messages": [{"role": "user", "content": "x", "prefix": True}]}, "messages[0].prefix", "role assistant"),
        (
            {"messages": [{"role": "assistant", "content": "x", "prefix": True}, {"role": "user", "content": "y"}]},
            "messages[0].prefix",
            "last message",
        ),
        (
            {
                "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "{", "prefix": True}],
                "response_format": {"type": "json_object"},
            },
            "response_format",
            "prefix",
        ),
        ({"tool_choice": "required"}, "tool_choice", "needs tools"),
        ({"tools": [ADD], "tool_choice": "always"}, "tool_choice", "required"),
        ({"tools": [ADD], "tool_choice": {"type": "function"}}, "tool_choice", "names no function"),
        (
            {"tools": [ADD], "tool_choice": {"type": "function", "function": {"name": "mul"}}},
            "tool_choice",
            "not among tools: add",
        ),
        ({"tools": [ADD | {"type": "custom"}]}, "tools[0].type", "function"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name", "regex"),
        (
            {"tools": [ADD], "tool_choice": "required", "response_format": {"type": "json_object"}},
            "response_format",
            "one of them",
        ),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "schema"),
        ({"response_format": {"type": "yaml"}}, "response_format.type", "json_schema"),
        ({"reasoning_effort": "huge"}, "reasoning_effort", "enum"),
        ({"tool_stream": "lively"}, "tool_stream", "enum"),
        ({"tools": [ADD], "tool_choice": {"type": "allowed_tools"}}, "tool_choice", "list tools"),
    ],
)
def test_what_does_not_fit_together_is_named_with_its_fix(fields: dict[str, Any], param: str, words: str) -> None:
    says = Says()
    answer = ask(says, **fields)
    assert (answer.status, says.asked) == (400, [])
    assert answer.error["param"] == param
    assert words in answer.error["message"]


def test_json_forms_are_told_to_the_model_and_forced_by_a_grammar() -> None:
    for said, schema in (
        ({"type": "json_object"}, {}),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {"type": "array"}}},
            {"type": "array"},
        ),
    ):
        listening, says = Listening(), Says("{}")
        assert ask(says, dialect=listening, response_format=said).status == 200
        assert listening.forms == [Form(schema=schema)] and listening.json_mode
        assert says.asked[0].sampling.grammar == "start: /form 1/"


@pytest.mark.parametrize(
    ("choice", "parallel", "offered", "form"),
    [
        ("auto", None, ["add", "sub"], None),
        (None, False, ["add", "sub"], None),
        ("none", None, [], None),
        ("required", None, ["add", "sub"], (["add", "sub"], True)),
        ("required", False, ["add", "sub"], (["add", "sub"], False)),
        ({"type": "function", "function": {"name": "sub"}}, None, ["add", "sub"], (["sub"], False)),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"function": {"name": "sub"}}]}},
            None,
            ["sub"],
            (["sub"], True),
        ),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"function": {"name": "sub"}}]}},
            None,
            ["sub"],
            None,
        ),
    ],
)
def test_tool_choice_says_what_is_offered_and_what_is_forced(
    choice: Any, parallel: bool | None, offered: list[str], form: tuple[list[str], bool] | None
) -> None:
    listening, says = Listening(), Says()
    answer = ask(says, dialect=listening, tools=[ADD, SUB], tool_choice=choice, parallel_tool_calls=parallel)
    assert answer.status == 200
    assert [tool.name for tool in listening.tools] == offered
    assert [([tool.name for tool in one.tools], one.many) for one in listening.forms] == ([form] if form else [])
    assert bool(says.asked[0].sampling.grammar) == bool(form)


class Parts:
    """A parser that reads words between bars as the parts of one call: |add|{"a":|1}|."""

    reasoning_tokens = 0

    def __init__(self) -> None:
        self._n = 0
        self._text = ""

    def feed(self, ids: list[int]) -> Said:
        said = Said()
        for token in ids:
            self._text += PEARL.bytes_of(token).decode()
        while "|" in self._text:
            piece, _, self._text = self._text.partition("|")
            part = CallPart(0, name=piece) if self._n == 0 else CallPart(0, arguments=piece)
            said.parts += (part,)
            self._n += 1
        return said

    def end(self) -> Said:
        return Said("", "", (ToolCall("add", '{"a":1}'),))


class InParts(Listening):
    def parser(self, prompt_ids: list[int]) -> Parts:
        return Parts()


def calls_in(answer: Answer) -> list[Any]:
    found = []
    for event in answer.events():
        if isinstance(event, dict) and event["choices"]:
            found += event["choices"][0]["delta"].get("tool_calls", ())
    return found


def test_calls_are_written_whole_or_as_they_come() -> None:
    async def service(generation: Generation) -> AsyncGenerator[Chunk, None]:
        for text in ("ad", "d|", '{"a"', ":|", "1|}|"):
            yield Chunk(PEARL.encode(text))
        yield Chunk([], finish=Finish.STOP)

    whole = calls_in(ask(service, dialect=InParts(), tools=[ADD], stream=True))
    assert [(row["index"], row["function"]) for row in whole] == [(0, {"name": "add", "arguments": '{"a":1}'})]
    live = ask(service, dialect=InParts(), tools=[ADD], stream=True, tool_stream="live")
    rows = calls_in(live)
    assert [(row["index"], row["function"]) for row in rows] == [
        (0, {"name": "add", "arguments": ""}),
        (0, {"arguments": '{"a":'}),
        (0, {"arguments": "1}"}),  # two parts of one chunk are one row
    ]
    assert rows[0]["id"] == whole[0]["id"] and rows[0]["type"] == "function" and "id" not in rows[1]
    assert [e for e in live.events() if isinstance(e, dict)][-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (EngineLost("moved too often"), "insufficient_system_resource"),
        (NoReplica("none serves"), "insufficient_system_resource"),
        (Expired("too late"), None),
    ],
)
def test_a_begun_stream_that_nobody_can_finish_says_so_in_deepseeks_word_and_then_in_openais_error(
    fault: Any, reason: str | None
) -> None:
    events = ask(Says(fault=fault, fault_after=2), stream=True).events()
    assert events[-1]["error"]["message"] == fault.why
    said = [event["choices"][0]["finish_reason"] for event in events[:-1] if isinstance(event, dict)]
    assert [one for one in said if one] == ([reason] if reason else [])


def test_the_card_knows_the_names() -> None:
    async def story() -> list[str]:
        async with doorway(Says()) as place:
            return [row["id"] for row in (await place.get("/v1/models")).json["data"]]

    assert run(story()) == ["pearl", *(name for name, _ in CARD.aliases)]


def test_an_unknown_model_is_a_404_that_names_those_there_are() -> None:
    answer = ask(Says(), model="gpt-5")
    assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "model_not_found", "model")
    assert "pearl, deepseek-chat, deepseek-reasoner" in answer.error["message"]
    assert msgspec.json.decode(answer.body)["error"]["type"] == "invalid_request_error"
