"""Sanity: does an answer look like one that a sound engine gives? Two signs that cost next to nothing to see.

A log probability that is not a number comes from broken arithmetic. One token repeated without end comes from broken
arithmetic too, but also from small models in a corner, and then every replica repeats: so repetition counts against a replica
only while no other one shows it, and only with different prompts. One stream is a finding that somebody may want to read; two
within a minute put the replica under suspicion, which the half rule bounds (policy/ejection.py).
"""

from math import isnan

from msgspec import Struct

from holdfast.domain.request import TokenLogprob

REPEATS_MAX = 256  # one id in a row; rules, blanks and zeros that somebody asked for are shorter
WINDOW_S = 60.0
STREAMS_MAX = 2  # so many odd streams within the window are no chance


class Odd(Struct, frozen=True, kw_only=True):
    """One odd stream. `prompt` tells prompts apart; any digest will do."""

    replica: str
    prompt: int
    repeats: bool  # else its numbers are broken, which no prompt does to a sound engine
    why: str


class Check:
    """Looks at one attempt's chunks as they pass. Says one thing, once."""

    __slots__ = ("_last", "_prompt_ids", "_replica", "_run", "_told")

    def __init__(self, replica: str, prompt_ids: list[int]) -> None:
        self._replica, self._prompt_ids = replica, prompt_ids
        self._last, self._run, self._told = -1, 0, False

    def see(self, ids: list[int], logprobs: list[TokenLogprob] | None) -> Odd | None:
        """What is odd by now, if anything."""
        for one in ids:
            if one == self._last:
                self._run += 1
            else:
                self._last, self._run = one, 1
        if logprobs and any(isnan(one.logprob) for one in logprobs):
            return self._tell(False, "a log probability is not a number")
        if self._run >= REPEATS_MAX:
            return self._tell(True, f"token {self._last} came {self._run} times in a row")
        return None

    def _tell(self, repeats: bool, why: str) -> Odd | None:
        if self._told:
            return None
        self._told = True
        return Odd(replica=self._replica, prompt=hash(tuple(self._prompt_ids)), repeats=repeats, why=why)


class Curious(Struct, frozen=True):
    """Worth telling, no more."""

    why: str


class Insane(Struct, frozen=True):
    """The replica is under suspicion."""

    why: str


class Docket:
    """What was found within the last minute, for all replicas of one gateway."""

    def __init__(self) -> None:
        self._found: list[tuple[float, Odd]] = []

    def note(self, odd: Odd, now: float) -> None:
        """Take one finding down."""
        self._found = [(at, one) for at, one in self._found if now - at <= WINDOW_S]
        self._found.append((now, odd))

    def judge(self, odd: Odd) -> Curious | Insane:
        """Judge its replica, once everything that was found is down."""
        alike = [one for _, one in self._found if one.repeats == odd.repeats]
        prompts = {one.prompt for one in alike if one.replica == odd.replica}
        streams = len(prompts) if odd.repeats else sum(one.replica == odd.replica for one in alike)
        if streams < STREAMS_MAX:
            return Curious(f"{odd.why}, in one stream so far")
        others = {one.replica for one in alike} - {odd.replica}
        if odd.repeats and others:
            return Curious(f"{odd.why}, but {min(others)} repeats itself too: that is the model")
        return Insane(f"{odd.why}: {streams} streams within {WINDOW_S:g} s")

    def forget(self, replica: str) -> None:
        """It was started anew, or was told of already."""
        self._found = [(at, one) for at, one in self._found if one.replica != replica]
