"""Canaries: questions with known answers, put to replicas in service through the door that gateways use.

Two kinds. ALIVE asks an idle replica for one token, since some engines wedge while idle. KNOWN asks for a short greedy answer
whose token ids are known: silent data corruption keeps every counter healthy and every answer plausible, and only this shows.

What is known was recorded when the model was validated (`holdfast validate --record`), or else is the first answer on which two
replicas of one release agree. An answer that differs is no proof by itself:

    a token that was all but tied   greedy choices between equals may fall either way on another batch: nothing is held against it
    a peer gives the same answer    two replicas do not corrupt alike: what was recorded is the likelier error, nobody is wrong
    the only one that says so       wrong; asked again at once, and `wrong_max` in a row condemn
"""

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from holdfast.domain.replica import Load
from holdfast.domain.request import TokenLogprob

TIE_NATS = 0.05  # fp32 kernels differ by 1e-5 of a logit, bf16 by 1e-2: below this a choice is as good as drawn
MARGIN_NATS = 0.5  # what is recorded should hold on every build: no choice in it closer than this
PROMPT_IDS = tuple(range(33, 49))  # asked where nothing was recorded: every vocabulary has them
CROWDED_S = 60.0  # a replica whose slots are all taken is left alone for at most so much longer


class Kind(StrEnum):
    ALIVE = "alive"
    KNOWN = "known"


class Known(Struct, frozen=True, kw_only=True):
    """A question and its answer. `margin_nats`: how far the closest choice in it was from its runner-up; 0: not measured."""

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    source: str  # recorded, agreed
    margin_nats: float = 0.0


class Answer(Struct, frozen=True):
    """What came back. `fault`: the replica failed the attempt and lives on."""

    ids: tuple[int, ...] = ()
    rows: tuple[TokenLogprob, ...] = ()
    fault: str = ""


class Right(Struct, frozen=True):
    why: str


class Wrong(Struct, frozen=True):
    """`place` is the first token that differs."""

    place: int
    why: str


class Rules(Struct, frozen=True, kw_only=True):
    """Settings. Seconds."""

    every_s: float = 300.0
    idle_s: float = 10.0
    idle_every_s: float = 15.0


class Asked(Struct, frozen=True, kw_only=True):
    """What was asked of one boot so far. None: never. `since`: known that long. `again`: to be repeated at once."""

    since: float = 0.0
    known_at: float | None = None
    answered_at: float | None = None  # any canary
    idle_since: float | None = None
    again: Kind | None = None


class Due(Struct, frozen=True):
    kind: Kind
    why: str


class Later(Struct, frozen=True):
    at: float


def next_canary(asked: Asked, load: Load, rules: Rules, now: float) -> Due | Later:
    """Which canary this replica should be asked now, or when to look again."""
    if load.draining:
        return Later(now + rules.idle_every_s)
    if asked.again is not None:
        return Due(asked.again, "the last one failed")
    due_at = asked.since if asked.known_at is None else asked.known_at + rules.every_s
    crowded = load.running >= load.slots or load.queued > 0
    if now >= due_at and (not crowded or now >= due_at + CROWDED_S):
        return Due(Kind.KNOWN, f"every {rules.every_s:g} s")
    if asked.idle_since is None:
        return Later(now + 1.0 if now >= due_at else min(due_at, now + rules.idle_every_s))
    last = asked.idle_since if asked.answered_at is None else asked.answered_at
    alive_at = max(asked.idle_since + rules.idle_s, last + rules.idle_every_s)
    if now >= alive_at:
        return Due(Kind.ALIVE, f"idle for {now - asked.idle_since:.0f} s")
    return Later(min(alive_at, due_at) if due_at > now else alive_at)


def judge(answer: Answer, known: Known, peers: Collection[tuple[int, ...]]) -> Right | Wrong:
    """Compare an answer with what is known; `peers` are the last answers of other replicas of the same release."""
    if answer.fault:
        return Wrong(0, f"the canary failed inside the engine: {answer.fault}")
    unsound = next((place for place, row in enumerate(answer.rows) if row.logprob != row.logprob), None)
    if unsound is not None:
        return Wrong(unsound, f"the canary's logprob at token {unsound} is not a number")
    place = _differs(answer.ids, known.ids)
    if place is None:
        return Right(f"{len(known.ids)} tokens as {known.source}")
    if _tied(answer, known, place):
        return Right(f"token {place} was a tie")
    if answer.ids in peers:
        return Right(f"a peer gives the same answer: what was {known.source} is in doubt, not the replica")
    said = answer.ids[place] if place < len(answer.ids) else "nothing"
    meant = known.ids[place] if place < len(known.ids) else "nothing"
    return Wrong(place, f"the canary's answer differs at token {place}: {said} instead of {meant} ({known.source})")


def _differs(ids: Sequence[int], known: Sequence[int]) -> int | None:
    if tuple(ids) == tuple(known):
        return None
    shorter = min(len(ids), len(known))
    return next((place for place in range(shorter) if ids[place] != known[place]), shorter)


def _tied(answer: Answer, known: Known, place: int) -> bool:
    if place >= min(len(answer.rows), len(known.ids)):
        return False
    row = answer.rows[place]
    other = dict(row.top).get(known.ids[place])
    return other is not None and abs(row.logprob - other) <= TIE_NATS


def agreed(answers: Mapping[str, tuple[int, ...]]) -> tuple[int, ...] | None:
    """The answer that two replicas give alike, from replica -> answer; None while there is none."""
    given = list(answers.values())
    return next((one for one in given if one and given.count(one) > 1), None)
