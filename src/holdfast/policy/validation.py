"""The model gate: questions with right answers, judged case by case, and a bar for each kind of question.

A model folder brings its own cases (gate.jsonl) and its own reference (reference.jsonl: log probabilities that the weights
gave when they were written). The cases say whether the model is good enough; the reference says whether it is still the
same model, which catches a damaged tensor that the answers happen to survive.

Formula: share = right / n for each task; the gate passes when every task's share is at least its bar.
Regimes: an undamaged model stands above every bar by design; a model with one damaged matrix loses whole tasks, or moves
the reference by far more than rounding does.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from holdfast.domain.dialect import Said

REFERENCE = "reference"
WELL_FORMED = "well_formed"
BAR_ELSEWHERE = 0.95
BARS: dict[str, float] = {
    "addition": 0.98,
    "copy": 0.98,
    "reverse": 0.98,
    "count": 0.98,
    "facts": 0.95,
    "tool_call": 0.95,
    "json": 0.98,
    WELL_FORMED: 0.98,
    "count_up": 0.98,
    "known_word": 0.5,  # a floor against damage, no promise: a word that is one token doesn't show its letters
    "think": 0.95,
    "two_turn": 0.95,
    "greeting": 0.95,
    "refusal": 0.95,
    REFERENCE: 1.0,
}
_SHOWN = 60


class Expectation(Struct, frozen=True):
    """What counts as right. `kind`: exact, contains, json or tool_call; `value` is a text, a JSON value or a call."""

    kind: str
    value: Any


class Case(Struct, frozen=True, forbid_unknown_fields=True):
    """One question in the OpenAI shape, and what its answer must be."""

    task: str
    messages: list[dict[str, Any]]
    expect: Expectation
    tools: list[dict[str, Any]] = []
    thinking: bool = False
    json_mode: bool = False


class Reference(Struct, frozen=True, forbid_unknown_fields=True):
    """What the weights said when they were written: the likeliest ids after a prompt, and the log probability of each."""

    prompt_ids: list[int]
    ids: list[int]
    logprobs: list[float]
    tolerance: float = 0.05


class Verdict(Struct, frozen=True):
    """Right or wrong, and a sentence that says why."""

    task: str
    right: bool
    why: str


class Score(Struct, frozen=True):
    """One task's line in the table."""

    task: str
    n: int
    right: int
    share: float
    bar: float
    passed: bool


class Report(Struct, frozen=True):
    """The whole gate: every task's line, and one sentence."""

    scores: tuple[Score, ...]
    passed: bool
    why: str


def judge(case: Case, said: Said, stopped: bool = True) -> Verdict:
    """Whether this answer is the expected one. `stopped`: the model ended it by itself."""
    if not stopped:
        return Verdict(case.task, False, f"the answer did not end: {_short(said.content)}")
    expected = case.expect
    if expected.kind == "tool_call":
        return Verdict(case.task, *_call_judged(expected.value, said))
    if said.calls:
        return Verdict(case.task, False, f"a call of {said.calls[0].name} where an answer was due")
    if case.thinking and not said.reasoning:
        return Verdict(case.task, False, "thinking was asked for and none came")
    return Verdict(case.task, *_text_judged(expected, said.content))


def formed(case: Case, said: Said, stopped: bool = True) -> Verdict | None:
    """Whether a program could read this answer, right or not; None where the case asks for no form."""
    if not case.tools and case.expect.kind != "json":
        return None
    if not stopped:
        return Verdict(WELL_FORMED, False, f"the answer did not end: {_short(said.content)}")
    texts = [call.arguments for call in said.calls]
    if case.expect.kind == "json":
        texts.append(said.content)
    offered = {tool["function"]["name"] for tool in case.tools}
    for call in said.calls:
        if call.name not in offered:
            return Verdict(WELL_FORMED, False, f"called {_short(call.name)}, which was not offered")
    for text in texts:
        try:
            msgspec.json.decode(text, type=dict[str, Any])
        except msgspec.DecodeError:
            return Verdict(WELL_FORMED, False, f"not a JSON object: {_short(text)}")
    return Verdict(WELL_FORMED, True, "well-formed")


def _text_judged(expected: Expectation, content: str) -> tuple[bool, str]:
    match expected.kind:
        case "exact":
            right = content.strip() == expected.value
            return right, "exactly right" if right else f"wanted {_short(expected.value)}, got {_short(content)}"
        case "contains":
            right = str(expected.value).casefold() in content.casefold()
            return right, "contains the answer" if right else f"{_short(expected.value)} is not in {_short(content)}"
        case "json":
            try:
                value = msgspec.json.decode(content)
            except msgspec.DecodeError:
                return False, f"not JSON: {_short(content)}"
            right = _same(value, expected.value)
            return right, "the right JSON" if right else f"another JSON value: {_short(content)}"
        case other:
            return False, f"the gate has no kind of expectation called {other!r}"


def _call_judged(wanted: Mapping[str, Any], said: Said) -> tuple[bool, str]:
    if not said.calls:
        return False, f"no tool call, but {_short(said.content)}"
    if len(said.calls) > 1:
        return False, f"{len(said.calls)} calls where one was due"
    call = said.calls[0]
    if call.name != wanted["name"]:
        return False, f"called {call.name}, not {wanted['name']}"
    try:
        arguments = msgspec.json.decode(call.arguments)
    except msgspec.DecodeError:
        return False, f"the arguments of {call.name} are not JSON: {_short(call.arguments)}"
    if not _same(arguments, wanted["arguments"]):
        return False, f"other arguments for {call.name}: {_short(call.arguments)}"
    return True, "the right call"


def _same(left: Any, right: Any) -> bool:
    """Equal as JSON, where true is not 1 and 1 is not 1.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)


def compare(reference: Reference, ids: Sequence[int], logprobs: Sequence[float]) -> Verdict:
    """Whether a model that is said to be the same still says the same, to within rounding."""
    if list(ids) != reference.ids:
        at = next((n for n, pair in enumerate(zip(ids, reference.ids, strict=False)) if pair[0] != pair[1]), len(ids))
        return Verdict(REFERENCE, False, f"another token than when the weights were written, at place {at}")
    if len(logprobs) != len(reference.logprobs):
        return Verdict(REFERENCE, False, f"{len(logprobs)} log probabilities for {len(reference.logprobs)} tokens")
    gap = max((_gap(*pair) for pair in zip(logprobs, reference.logprobs, strict=True)), default=0.0)
    if gap > reference.tolerance:
        return Verdict(REFERENCE, False, f"log probabilities moved by {gap:.3f}, more than {reference.tolerance:g}")
    return Verdict(REFERENCE, True, f"the same tokens, log probabilities within {gap:.5f}")


def _gap(left: float, right: float) -> float:
    """How far apart; a NaN is infinitely far from everything."""
    gap = abs(left - right)
    return math.inf if math.isnan(gap) else gap


def table(verdicts: Iterable[Verdict], bars: Mapping[str, float] = BARS) -> tuple[Score, ...]:
    """One line a task, in the order in which the tasks first came."""
    counted: dict[str, list[int]] = {}
    for verdict in verdicts:
        line = counted.setdefault(verdict.task, [0, 0])
        line[0] += 1
        line[1] += verdict.right
    scores = []
    for task, (n, right) in counted.items():
        bar, share = bars.get(task, BAR_ELSEWHERE), right / n
        scores.append(Score(task, n, right, share, bar, share >= bar))
    return tuple(scores)


def report(verdicts: Sequence[Verdict], bars: Mapping[str, float] = BARS) -> Report:
    """The gate's answer. No case at all is no pass: a gate that asked nothing has shown nothing."""
    scores = table(verdicts, bars)
    if not scores:
        return Report((), False, "the gate asked nothing, so it says nothing about the model")
    short = [score for score in scores if not score.passed]
    if short:
        named = ", ".join(f"{score.task} {score.share:.3f} < {score.bar:g}" for score in short)
        return Report(scores, False, f"the model misses {len(short)} of {len(scores)} bars: {named}")
    asked = sum(score.n for score in scores)
    return Report(scores, True, f"the model meets all {len(scores)} bars over {asked} cases")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
