"""The gate says right only of the right answer, says why in a sentence, and passes only when every bar is met."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.dialect import Said, ToolCall
from holdfast.policy.validation import (
    BARS,
    Case,
    Expectation,
    Reference,
    Verdict,
    compare,
    formed,
    judge,
    report,
    table,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def asked(kind, value, **more):
    return Case("task", [{"role": "user", "content": "?"}], Expectation(kind, value), **more)


@given(st.text(), st.text())
def test_exact_means_equal_but_for_the_white_space_around(wanted, got):
    assert judge(asked("exact", wanted.strip()), Said(content=f" {wanted}\n")).right
    assert judge(asked("exact", wanted), Said(content=got)).right == (got.strip() == wanted)


@given(JSON, JSON)
def test_json_is_judged_by_value_and_type(wanted, got):
    verdict = judge(asked("json", wanted), Said(content=msgspec.json.encode(got).decode()))
    assert verdict.right == (msgspec.json.encode(wanted, order="sorted") == msgspec.json.encode(got, order="sorted"))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (Said(content="84"), "no tool call, but '84'"),
        (Said(calls=(ToolCall("sub", "{}"),)), "called sub, not add"),
        (Said(calls=(ToolCall("add", "{a: 1}"),)), "the arguments of add are not JSON: '{a: 1}'"),
        (Said(calls=(ToolCall("add", '{"a": 2}'),)), "other arguments for add: '{\"a\": 2}'"),
        (Said(calls=(ToolCall("add", '{"a": true}'),)), "other arguments for add: '{\"a\": true}'"),
        (Said(calls=(ToolCall("add", "{}"),) * 2), "2 calls where one was due"),
        (Said(calls=(ToolCall("add", '{"a":1}'),)), "the right call"),
    ],
)
def test_a_call_is_right_only_with_its_name_and_arguments(said, why):
    verdict = judge(asked("tool_call", {"name": "add", "arguments": {"a": 1}}), said)
    assert verdict == Verdict("task", why == "the right call", why)


def test_an_answer_that_does_not_end_or_does_not_think_is_wrong():
    assert judge(asked("exact", "4"), Said(content="4"), stopped=False).why == "the answer did not end: '4'"
    thinking = asked("exact", "4", thinking=True)
    assert judge(thinking, Said(content="4")).why == "thinking was asked for and none came"
    assert judge(thinking, Said(reasoning="2 + 2 = 4.", content="4")).right


def test_a_call_where_an_answer_was_due_is_wrong():
    verdict = judge(asked("exact", "4"), Said(content="4", calls=(ToolCall("add", "{}"),)))
    assert verdict.why == "a call of add where an answer was due"


ADD = {"type": "function", "function": {"name": "add", "parameters": {}}}


@pytest.mark.parametrize(
    ("case", "said", "why"),
    [
        (asked("exact", "4", tools=[ADD]), Said(content="5"), "well-formed"),
        (asked("exact", "4", tools=[ADD]), Said(calls=(ToolCall("add", '{"a": 1}'),)), "well-formed"),
        (asked("exact", "4", tools=[ADD]), Said(calls=(ToolCall("sub", "{}"),)), "called 'sub', which was not offered"),
        (asked("exact", "4", tools=[ADD]), Said(calls=(ToolCall("add", "{"),)), "not a JSON object: '{'"),
        (asked("exact", "4", tools=[ADD]), Said(calls=(ToolCall("add", "[]"),)), "not a JSON object: '[]'"),
        (asked("json", {"a": 1}), Said(content='{"b": 2}'), "well-formed"),
        (asked("json", {"a": 1}), Said(content="a"), "not a JSON object: 'a'"),
    ],
)
def test_form_is_judged_apart_from_truth(case, said, why):
    assert formed(case, said) == Verdict("well_formed", why == "well-formed", why)


def test_form_is_asked_only_where_there_is_one():
    assert formed(asked("exact", "4"), Said(content="{")) is None
    assert formed(asked("json", {}), Said(content="{}"), stopped=False).why == "the answer did not end: '{}'"


def test_an_unknown_kind_is_never_right():
    verdict = judge(asked("almost", "4"), Said(content="4"))
    assert (verdict.right, verdict.why) == (False, "the gate has no kind of expectation called 'almost'")
    assert judge(asked("contains", "Pearl"), Said(content="I am pearl.")).right


@given(st.lists(st.tuples(st.sampled_from(sorted(BARS)), st.booleans()), max_size=60))
def test_the_table_counts_every_verdict_once_and_all_bars_must_hold(drawn):
    verdicts = [Verdict(task, right, "") for task, right in drawn]
    scores = table(verdicts)
    assert sum(score.n for score in scores) == len(drawn)
    assert sum(score.right for score in scores) == sum(right for _, right in drawn)
    assert all(score.passed == (score.right / score.n >= score.bar) for score in scores)
    assert report(verdicts).passed == (bool(scores) and all(score.passed for score in scores))


def test_the_report_names_what_fell_short():
    verdicts = [Verdict("addition", n > 0, "") for n in range(10)] + [Verdict("copy", True, "")]
    assert report(verdicts).why == "the model misses 1 of 2 bars: addition 0.900 < 0.98"
    assert report(verdicts, {"addition": 0.9}).why == "the model meets all 2 bars over 11 cases"
    assert report([]).why == "the gate asked nothing, so it says nothing about the model"


REFERENCE = Reference([1, 2], [3, 4], [-0.5, -1.0], tolerance=0.05)


@given(st.lists(st.floats(-0.04, 0.04), min_size=2, max_size=2))
def test_rounding_is_no_damage(noise):
    assert compare(REFERENCE, [3, 4], [-0.5 + noise[0], -1.0 + noise[1]]).right


@pytest.mark.parametrize(
    ("ids", "logprobs", "why"),
    [
        ([3, 5], [-0.5, -1.0], "another token than when the weights were written, at place 1"),
        ([3], [-0.5], "another token than when the weights were written, at place 1"),
        ([3, 4], [-0.5], "1 log probabilities for 2 tokens"),
        ([3, 4], [-0.5, -1.2], "log probabilities moved by 0.200, more than 0.05"),
        ([3, 4], [math.nan, -1.0], "log probabilities moved by inf, more than 0.05"),
    ],
)
def test_a_damaged_model_speaks_otherwise(ids, logprobs, why):
    assert compare(REFERENCE, ids, logprobs) == Verdict("reference", False, why)
