"""The form that an answer must have: what a request's fields make of it, as the engine's own grammar reads it."""

from typing import Any

from doorway import FOLDER, PEARL, Answer, Says, chat_body, doorway, ids_of, run

from holdfast.pearl.constraint import Grammars

GRAMMARS = Grammars.open(FOLDER, PEARL.vocab_size, PEARL.stop_ids)


def ask(service: Any, **fields: Any) -> Answer:
    """One chat over a fresh door."""

    async def story() -> Answer:
        async with doorway(service) as place, place.client() as client:
            return await client.ask(chat_body(**fields))

    return run(story())


def grammar_for(**fields: Any) -> str:
    """What Pearl's dialect makes of a request's fields."""
    says = Says()
    answer = ask(says, **fields)
    assert answer.status == 200, answer.error
    return says.asked[0].sampling.grammar


def allows(grammar: str, text: str) -> bool:
    """Whether an engine could say this under the grammar, and end there."""
    matcher = GRAMMARS.matcher(grammar)
    ids = ids_of(text)
    return bool(matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting())


def call(name: str, arguments: str) -> str:
    return f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{arguments}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"


def typed(name: str, strict: bool, **schema: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"a": {"type": "integer"} | schema}, "required": ["a"]}
    parameters["additionalProperties"] = False
    return {"type": "function", "function": {"name": name, "parameters": parameters, "strict": strict}}


def test_a_forced_call_is_all_that_can_be_said() -> None:
    grammar = grammar_for(tools=[typed("add", False), typed("sub", False)], tool_choice="required")
    assert allows(grammar, call("add", '{"a": 1}')) and allows(grammar, call("sub", '{"a": 1}'))
    assert not allows(grammar, "no") and not allows(grammar, call("add", '{"a": "x"}'))
    named = {"type": "function", "function": {"name": "sub"}}
    grammar = grammar_for(tools=[typed("add", False), typed("sub", False)], tool_choice=named)
    assert allows(grammar, call("sub", '{"a": 1}')) and not allows(grammar, call("add", '{"a": 1}'))


def test_strict_tools_are_kept_to_their_parameters_though_the_model_chooses() -> None:
    grammar = grammar_for(tools=[typed("add", True), typed("sub", False)])
    assert allows(grammar, "Hello.") and allows(grammar, "")
    assert allows(grammar, "Let me see." + call("add", '{"a": 1}'))
    assert not allows(grammar, call("add", '{"a": "x"}')), "add is strict"
    assert allows(grammar, call("sub", '{"a": "x"}')), "sub is not"
    assert not allows(grammar, call("mul", "{}"))
    assert grammar_for(tools=[typed("add", False)]) == ""


def test_with_tools_an_answer_is_json_or_a_call() -> None:
    schema = {"type": "json_schema", "json_schema": {"schema": {"type": "object", "required": ["b"]}}}
    grammar = grammar_for(tools=[typed("add", True)], response_format=schema)
    assert allows(grammar, '{"b": 2}') and allows(grammar, call("add", '{"a": 1}'))
    assert not allows(grammar, "Hello.") and not allows(grammar, '{"c": 2}') and not allows(grammar, call("add", "{}"))


def test_a_schema_that_no_grammar_can_keep_is_refused_for_strict_tools_and_loosened_for_others() -> None:
    answer = ask(Says(), tools=[typed("add", True, uniqueItems=True)], tool_choice="required")
    assert (answer.status, answer.error["param"]) == (400, "tools[0].function.parameters")
    assert "uniqueItems" in answer.error["message"]
    grammar = grammar_for(tools=[typed("add", False, uniqueItems=True)], tool_choice="required")
    assert allows(grammar, call("add", '{"a": "x"}')) and not allows(grammar, call("add", "[]"))
