"""Reckoning: what became of the answers of a drill, seen from the client's side alone.

An answer is exact when its text, its tokens, their number and its finish are those of the same request in a site at rest.
Anything else is counted under exactly one word. Pauses are told for answers that moved, and are the client's: the silence
between two events with text in them. Which blow a silence belongs to is not told on the wire, so each silence is laid to the
blow that fell nearest to its beginning, and an answer that moved m times is charged with the m longest of these.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher

from msgspec import Struct, field

from holdfast.policy.havoc import Blow, Strike

IN_FLIGHT_S = 0.5  # tokens that left a replica before the blow arrive at most so much later, on a busy machine


class Answer(Struct):
    """One answer as its client saw it. Times are the Clock's seconds; `arrivals` are events that carried text."""

    case: int
    opened_at: float
    arrivals: list[float] = field(default_factory=list)
    reasoning: str = ""
    content: str = ""
    tokens: list[str] = field(default_factory=list)  # empty unless logprobs were asked for
    completion_tokens: int = 0
    finish: str = ""
    moves: int = 0
    end: str = ""  # empty while open; then ended, truncated, errored, refused or hung
    why: str = ""

    def same_as(self, other: "Answer") -> bool:
        """Whether both say the same, token for token."""
        mine = (self.reasoning, self.content, self.tokens, self.completion_tokens, self.finish)
        return mine == (other.reasoning, other.content, other.tokens, other.completion_tokens, other.finish)


class Pause(Struct, frozen=True):
    """A silence in an answer that moved, and the blow that it is charged to."""

    blow: Blow
    seconds: float


class Reckoning(Struct, kw_only=True):
    """The sum. Every answer is under exactly one of exact, wrong, truncated, errored, refused and hung."""

    strikes: int = 0
    answers: int = 0
    exact: int = 0
    wrong: int = 0
    truncated: int = 0
    errored: int = 0
    refused: int = 0
    hung: int = 0
    affected: int = 0  # answers that moved
    saved: int = 0  # of these, exact
    lost_tokens: int = 0
    doubled_tokens: int = 0
    false_moves: int = 0  # moves of answers beyond the blows that fell while they were open
    pauses: list[Pause] = field(default_factory=list)
    whys: list[str] = field(default_factory=list)  # what the site said of answers that did not end well

    @property
    def broken(self) -> int:
        """Answers that did not end as they should have."""
        return self.answers - self.exact

    @property
    def ok(self) -> bool:
        """Whether the promise was kept: something was asked, and every answer is exact."""
        return self.answers > 0 and self.broken == 0

    def pauses_ms(self, blow: Blow) -> list[float]:
        """Silences after this kind of blow, in milliseconds, shortest first."""
        return sorted(pause.seconds * 1000 for pause in self.pauses if pause.blow is blow)

    def verdict(self) -> str:
        """One line that can be read aloud."""
        line = f"{self.strikes} replicas lost, {self.answers} answers, {self.exact} exact, {self.broken} broken"
        told = []
        for blow, word in ((Blow.KILL, "a kill"), (Blow.FREEZE, "a freeze")):
            values = self.pauses_ms(blow)
            if values:
                p50, p99 = percentile(values, 0.5), percentile(values, 0.99)
                told.append(f"after {word} p50 {p50:.0f} ms, p99 {p99:.0f} ms")
        return f"{line}; pause {'; '.join(told)}" if told else line


def percentile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank: the smallest value that at least `share` of all values do not exceed. `ordered` is ascending, not empty."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def pauses(answer: Answer, strikes: Sequence[Strike]) -> list[Pause]:
    """The silences that an answer's moves are charged with, see the head of this file."""
    longest: dict[int, float] = {}
    for begin, end in itertools.pairwise([answer.opened_at, *answer.arrivals]):
        near = [n for n, strike in enumerate(strikes) if begin - IN_FLIGHT_S <= strike.at < end]
        if near:
            cause = min(near, key=lambda n: abs(strikes[n].at - begin))
            longest[cause] = max(longest.get(cause, 0.0), end - begin)
    found = [Pause(strikes[n].blow, seconds) for n, seconds in longest.items()]
    found.sort(key=lambda pause: -pause.seconds)
    return found[: answer.moves]


class Drift(Struct, frozen=True):
    """Means of a series, and the change between them in per cent."""

    first: float
    last: float
    percent: float


def drift_percent(values: Sequence[float], unsettled_share: float) -> Drift:
    """How far a series has moved: the mean of its first third against that of its last, after the unsettled beginning was
    left out. `values` are at equal distances in time, three at least after that."""
    settled = values[int(len(values) * unsettled_share) :]
    third = max(1, len(settled) // 3)
    first, last = sum(settled[:third]) / third, sum(settled[-third:]) / third
    return Drift(first, last, 100 * (last - first) / first if first else 0.0)


def silence_s_max(answer: Answer) -> float:
    """The longest silence between two events of an answer, or before its first, whether or not it moved."""
    return max((end - begin for begin, end in itertools.pairwise([answer.opened_at, *answer.arrivals])), default=0.0)


def reckon(answers: Sequence[Answer], at_rest: Mapping[int, Answer], strikes: Sequence[Strike]) -> Reckoning:
    """Sum up a drill. `at_rest` holds, for each case, the answer of a site that nobody hurt."""
    total = Reckoning(strikes=len(strikes))
    for answer in answers:
        wanted = at_rest[answer.case]
        same = answer.end == "ended" and answer.same_as(wanted)
        word = "exact" if same else {"ended": "wrong"}.get(answer.end, answer.end or "hung")
        setattr(total, word, getattr(total, word) + 1)
        total.answers += 1
        if answer.end != "ended":
            total.whys.append(f"{answer.end or 'hung'}: {answer.why}")
        if answer.moves:
            total.affected += 1
            total.saved += same
            while_open = sum(answer.opened_at - IN_FLIGHT_S <= strike.at <= _last(answer) for strike in strikes)
            total.false_moves += max(0, answer.moves - while_open)
            total.pauses += pauses(answer, strikes)
        if not same and answer.end == "ended":
            lost, doubled = _difference(_pieces(wanted), _pieces(answer))
            total.lost_tokens += lost
            total.doubled_tokens += doubled
    return total


def _last(answer: Answer) -> float:
    return answer.arrivals[-1] if answer.arrivals else answer.opened_at


def _pieces(answer: Answer) -> list[str]:
    """Tokens where they are known, else characters."""
    return answer.tokens or list(answer.reasoning + answer.content)


def _difference(wanted: list[str], got: list[str]) -> tuple[int, int]:
    """(missing, added) pieces between two answers."""
    missing = added = 0
    for kind, a0, a1, b0, b1 in SequenceMatcher(None, wanted, got, autojunk=False).get_opcodes():
        if kind != "equal":
            missing += a1 - a0
            added += b1 - b0
    return missing, added
