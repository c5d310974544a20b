"""Canaries: when they are asked, and what an answer that differs proves."""

from math import nan

from hypothesis import given
from hypothesis import strategies as some

from holdfast.domain.replica import Load
from holdfast.domain.request import TokenLogprob
from holdfast.policy.canary import (
    CROWDED_S,
    Answer,
    Asked,
    Due,
    Kind,
    Known,
    Later,
    Right,
    Rules,
    Wrong,
    agreed,
    judge,
    next_canary,
)

RULES = Rules(every_s=300.0, idle_s=10.0, idle_every_s=15.0)
KNOWN = Known(prompt_ids=(1, 2), ids=(5, 6, 7), source="recorded")
IDLE, BUSY, FULL = Load(slots=4), Load(slots=4, running=2), Load(slots=4, running=4, queued=1)


def test_a_new_boot_is_asked_what_is_known_at_once() -> None:
    assert next_canary(Asked(since=100.0), IDLE, RULES, 100.0) == Due(Kind.KNOWN, "every 300 s")
    assert next_canary(Asked(since=100.0), BUSY, RULES, 100.0) == Due(Kind.KNOWN, "every 300 s")


def test_a_crowded_replica_is_spared_but_not_for_ever() -> None:
    asked = Asked(since=0.0, known_at=0.0)
    assert isinstance(next_canary(asked, FULL, RULES, 301.0), Later)
    assert next_canary(asked, FULL, RULES, 300.0 + CROWDED_S) == Due(Kind.KNOWN, "every 300 s")


def test_an_idle_replica_is_asked_for_one_token() -> None:
    asked = Asked(known_at=0.0, answered_at=0.0, idle_since=2.0)
    assert next_canary(asked, IDLE, RULES, 14.9) == Later(15.0)
    assert next_canary(asked, IDLE, RULES, 15.0) == Due(Kind.ALIVE, "idle for 13 s")


def test_a_busy_replica_is_not_asked_for_one_token() -> None:
    asked = Asked(known_at=0.0, answered_at=0.0)
    verdict = next_canary(asked, BUSY, RULES, 200.0)
    assert verdict == Later(215.0)


def test_what_failed_is_asked_again_at_once_and_a_draining_replica_nothing() -> None:
    asked = Asked(known_at=10.0, answered_at=10.0, again=Kind.KNOWN)
    assert next_canary(asked, BUSY, RULES, 10.0) == Due(Kind.KNOWN, "the last one failed")
    assert isinstance(next_canary(asked, Load(draining=True), RULES, 10.0), Later)


def test_the_same_tokens_are_right() -> None:
    assert judge(Answer((5, 6, 7)), KNOWN, frozenset()) == Right("3 tokens as recorded")


def test_another_token_is_wrong() -> None:
    assert judge(Answer((5, 9, 7)), KNOWN, frozenset()) == Wrong(
        1, "the canary's answer differs at token 1: 9 instead of 6 (recorded)"
    )
    assert judge(Answer((5, 6)), KNOWN, frozenset()) == Wrong(
        2, "the canary's answer differs at token 2: nothing instead of 7 (recorded)"
    )


def test_a_tie_proves_nothing() -> None:
    rows = tuple(TokenLogprob(token, -0.70, ((token, -0.70), (6, -0.71))) for token in (5, 9, 7))
    assert judge(Answer((5, 9, 7), rows), KNOWN, frozenset()) == Right("token 1 was a tie")
    clear = tuple(TokenLogprob(token, -0.1, ((token, -0.1), (6, -3.0))) for token in (5, 9, 7))
    assert isinstance(judge(Answer((5, 9, 7), clear), KNOWN, frozenset()), Wrong)


def test_replicas_do_not_corrupt_alike() -> None:
    assert judge(Answer((5, 9, 7)), KNOWN, {(5, 9, 7)}) == Right(
        "a peer gives the same answer: what was recorded is in doubt, not the replica"
    )


def test_no_number_and_a_fault_are_wrong_whatever_the_tokens() -> None:
    rows = (TokenLogprob(5, -0.1), TokenLogprob(6, nan), TokenLogprob(7, -0.1))
    assert judge(Answer((5, 6, 7), rows), KNOWN, frozenset()) == Wrong(
        1, "the canary's logprob at token 1 is not a number"
    )
    assert judge(Answer((), fault="the logits are not finite"), KNOWN, {()}) == Wrong(
        0, "the canary failed inside the engine: the logits are not finite"
    )


@given(some.lists(some.integers(0, 9), min_size=1, max_size=6))
def test_judging_is_exact(ids: list[int]) -> None:
    known = Known(prompt_ids=(1,), ids=(1, 2, 3), source="agreed")
    assert isinstance(judge(Answer(tuple(ids)), known, frozenset()), Right) == (ids == [1, 2, 3])


def test_two_must_agree() -> None:
    assert agreed({"a": (1, 2), "b": ()}) is None
    assert agreed({"a": (1, 2), "b": (1, 3)}) is None
    assert agreed({"a": (), "b": ()}) is None
    assert agreed({"a": (1, 3), "b": (1, 2), "c": (1, 2)}) == (1, 2)
