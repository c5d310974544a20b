"""Poison: which answer does a dead engine speak against, and what becomes of it?

A request that kills its engine must not be carried on to the next as if the engine had been at fault. What is known of a
death is little: who was in flight, how far each had come, and what the engine left in its black box.

    crash      the box says that it died of its own fault: everybody in flight is a suspect
    silent     it says nothing (a SIGKILL, from us, from an operator or from the kernel): only those are suspects that had not a
               single token of that attempt yet, for reading a prompt is where engines die of requests; and only if the replica
               was heard shortly before: one that had been quiet was frozen, and was killed for that, or had died before the
               attempt came to it. Where attempts waited for a slot inside the replica, or this one was there for long, nothing
               tells that it was being read at all
    memory     the box says that it ran out of memory: that is what all in flight did together, so it is judged as silent
    explained  another suspect was on trial there: it has drawn the blame, everybody else goes on; but whoever is there at
               two such deaths may be what killed them, and goes on alone

A suspect is on trial: it goes on alone, the only one of its kind on its replica, until it has made a few tokens there. If
that engine dies too, there is nobody else to blame. Answers that were far into decoding when their engine was killed silently
go on at once, unless it is the third time: twice is what chance can do to a long answer.
"""

from collections.abc import Sequence

from msgspec import Struct

QUIET_S = 2.0  # a replica unheard for longer was frozen before it died
QUIET_S_PER_TOKEN = 0.001  # unless it was reading: as settings' prefill_s_per_token
HEARD_S = (
    0.75  # one not heard so shortly before the attempt began may have been dead by then; idle pings are 0.5 s apart
)
READ_TOKENS_MAX = 4096  # no engine reads more prompt than this in one step
SILENT_MAX = 3  # so many silent deaths make a suspect of any answer
EXPLAINED_MAX = 2  # whoever was there so often when another drew the blame is a suspect too
OUT_OF_MEMORY = ("MemoryError", "out of memory", "OutOfMemory")  # Python's, the kernel's and CUDA's, torch's
TRIAL_TOKENS_MAX = 64  # a trial is never longer


class Death(Struct, frozen=True, kw_only=True):
    """What is known of one engine's death, as seen from one answer that was in flight there."""

    boot: str
    crash: str = ""  # first line of the black box
    tokens: int = 0  # that the answer had made on this attempt
    unread: int = 0  # prompt and delivered tokens that the attempt had to read
    silent_s: float = 0.0  # since the replica was last heard
    age_s: float = 0.0  # of the attempt
    queued: int = 0  # attempts that waited for a slot inside the replica
    on_trial: bool = False  # the answer was a suspect there, not cleared yet
    explained: bool = False  # another answer was on trial there

    @property
    def loud(self) -> bool:
        """Whether the box speaks of a fault that a single request may be guilty of."""
        return bool(self.crash) and not any(words in self.crash for words in OUT_OF_MEMORY)

    @property
    def evident(self) -> bool:
        """Whether it speaks against those in flight."""
        quiet_s = QUIET_S + QUIET_S_PER_TOKEN * min(self.unread, READ_TOKENS_MAX)
        being_read = self.tokens == 0 and not self.queued and self.age_s <= QUIET_S + QUIET_S_PER_TOKEN * self.unread
        lived = self.silent_s - self.age_s <= HEARD_S
        return self.loud or (being_read and lived and self.silent_s <= quiet_s)


class Innocent(Struct, frozen=True):
    """It moves at once."""

    why: str


class Suspect(Struct, frozen=True):
    """It goes on alone on its next replica until it has made `tokens` tokens there."""

    why: str
    tokens: int


class Condemned(Struct, frozen=True):
    """It has cost two engines. `certain`: the black box says so; else make sure that the engine is really gone."""

    why: str
    certain: bool


def after_death(deaths: Sequence[Death], clear_tokens: int) -> Innocent | Suspect | Condemned:
    """Judge an answer by all deaths that it was in flight at, the last of them new."""
    death = deaths[-1]
    how = death.crash or "it ended without a word"
    if death.on_trial and death.evident:
        return Condemned(f"{len(deaths)} engines died of it, the last while it was the only suspect: {how}", death.loud)
    if death.on_trial:
        return Suspect(f"it was on trial when its engine was ended from outside: {how}", _trial(deaths, clear_tokens))
    if death.explained and sum(1 for one in deaths if one.explained) < EXPLAINED_MAX:
        return Innocent("another answer was on trial there")
    if death.explained:
        return Suspect(
            f"it was there at {len(deaths)} deaths that others were blamed for", _trial(deaths, clear_tokens)
        )
    if death.loud:
        return Suspect(f"it was in flight when an engine died of its own fault: {how}", _trial(deaths, clear_tokens))
    if death.evident:
        return Suspect("its prompt was being read when an engine ended without a word", _trial(deaths, clear_tokens))
    if sum(1 for one in deaths if not one.loud and not one.explained) >= SILENT_MAX:
        return Suspect(f"it was in flight at {len(deaths)} deaths of engines", _trial(deaths, clear_tokens))
    return Innocent("its engine was ended from outside")


def _trial(deaths: Sequence[Death], clear_tokens: int) -> int:
    """The first trial is short, since many may wait for it; whoever was cleared and saw a death again has to get past
    the point at which that one happened."""
    if sum(1 for one in deaths if one.evident) < 2:
        return clear_tokens
    return min(max(clear_tokens, deaths[-1].tokens + clear_tokens), max(clear_tokens, TRIAL_TOKENS_MAX))
