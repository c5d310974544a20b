"""What is sent of a grammar to engines that read it themselves."""

import pytest

from holdfast.engine.grammars import AS_JSON, BY_IDS, plain, verdict


def test_loose_separators_go_as_words_and_texts_of_the_schema_stay() -> None:
    loose = '"x-guidance":{"item_separator":", ?","key_separator":": ?"}'
    ours = 'start: %json {"const":"\\"item_separator\\":\\", ?\\"",' + loose + "}"
    sent = plain(ours)
    assert '"x-guidance":{"item_separator":", ","key_separator":": "}' in sent
    assert '\\"item_separator\\":\\", ?' in sent
    assert plain("start: <[5]>") == "start: <[5]>"


def test_the_trials_are_grammars_that_llguidance_reads() -> None:
    llguidance = pytest.importorskip("llguidance")
    for grammar in (BY_IDS, AS_JSON):
        assert not llguidance.LLMatcher.validate_grammar(llguidance.LLMatcher.grammar_from_lark(grammar), None)


@pytest.mark.parametrize(
    ("ids", "text", "why"),
    [
        ([6, 5, 4, 1], '{"a": 1, "b": 2}', "a Lark grammar of 3 ids and one of JSON were kept to"),
        ([6, 5], '{"a": 1, "b": 2}', "a Lark grammar of 3 ids was taken and not kept to"),
        ([6, 5, 4], '{"a": ?1, ?"b": ?2}', """under a grammar of JSON it said '{"a": ?1, ?"b": ?2}'"""),
    ],
)
def test_a_trial_is_judged_with_a_sentence(ids: list[int], text: str, why: str) -> None:
    assert verdict(ids, text) == (why.endswith("were kept to"), why)
