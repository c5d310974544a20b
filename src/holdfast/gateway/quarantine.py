"""Quarantine: requests that kill engines are found, isolated and refused. policy.poison judges; this room keeps the files.

A suspect goes on alone: it holds the cell of its replica, and that of its fingerprint, so that two suspects never share an
engine and two copies of one request are never on trial at once, in whatever worker they are. Who holds a cell when its engine
dies leaves its name on the door: the other workers read there that this death is explained, and let their own answers go.

Nothing of a request is kept but its fingerprint, a keyed digest of its prompt ids.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol

from msgspec import structs

from holdfast.domain.event import Emit, RequestCondemned, RequestSuspected
from holdfast.domain.fault import EngineLost, Poisonous
from holdfast.domain.ports import Clock
from holdfast.domain.request import Chunk, Generation
from holdfast.gateway.lines import Lines
from holdfast.gateway.service import Layer, Service
from holdfast.policy import poison
from holdfast.policy.poison import Condemned, Death, Innocent, Suspect

CONFIRM_S = 1.0  # how long we wait for word of whether an engine is really gone, before a request is condemned for it


class Cells(Protocol):
    """Named places for one, on the whole machine."""

    def enter(self, name: str, who: str) -> bool:
        """Take the place if it is free. It is free again when its holder's process ends."""
        ...

    def leave(self, name: str) -> None:
        """Free a place that we hold; others are left alone."""
        ...

    def inmate(self, name: str) -> str:
        """Who holds the place now; empty if nobody does."""
        ...


class Register(Protocol):
    """The condemned of this machine, by fingerprint."""

    def fingerprint(self, prompt_ids: list[int]) -> str:
        """A keyed digest: the same on every worker of this machine, and of no use to anybody else."""
        ...

    def condemned(self, anew: bool = False) -> Mapping[str, float]:
        """Fingerprints and until when they are refused, in unix seconds. Cheap enough for every request, and a tenth of a second
        old at most; not even that with `anew`."""
        ...

    def condemn(self, fingerprint: str, until_unix_s: float, why: str, tenant: str = "") -> None: ...


@dataclass
class OwnCells:
    """Cells of one process alone."""

    held: dict[str, str] = field(default_factory=dict)

    def enter(self, name: str, who: str) -> bool:
        return self.held.setdefault(name, who) == who

    def leave(self, name: str) -> None:
        self.held.pop(name, None)

    def inmate(self, name: str) -> str:
        return self.held.get(name, "")


@dataclass
class OwnRegister:
    """A register of one process alone. `key` is for its fingerprints."""

    key: bytes = b""
    until: dict[str, float] = field(default_factory=dict)

    def fingerprint(self, prompt_ids: list[int]) -> str:
        return digest(self.key, prompt_ids)

    def condemned(self, anew: bool = False) -> Mapping[str, float]:
        return self.until

    def condemn(self, fingerprint: str, until_unix_s: float, why: str, tenant: str = "") -> None:
        self.until[fingerprint] = until_unix_s


def digest(key: bytes, prompt_ids: list[int]) -> str:
    """The fingerprint of a prompt under a key: 24 hex digits."""
    return blake2b(b",".join(b"%d" % one for one in prompt_ids), key=key, digest_size=12).hexdigest()


@dataclass
class _Case:
    """What is held against one answer while it lasts."""

    fingerprint: str
    deaths: list[Death] = field(default_factory=list)
    trial_tokens: int = 0  # that it has yet to make alone; 0: it is no suspect
    cell: str = ""  # boot of the replica where it is on trial


@dataclass
class Quarantine:
    """This worker's part of it. `freed` is called when a cell has become free."""

    lines: Lines
    clock: Clock
    unix_s: Callable[[], float]
    emit: Emit
    cells: Cells = field(default_factory=OwnCells)
    register: Register = field(default_factory=OwnRegister)
    keep_s: float = 3600.0
    clear_tokens: int = 2
    freed: Callable[[], None] = lambda: None
    cases: dict[str, _Case] = field(default_factory=dict)

    def admit(self, generation: Generation) -> None:
        """Raise Poisonous if its like has cost two engines lately."""
        condemned = self.register.condemned()
        if condemned:
            self._refuse(self.register.fingerprint(generation.prompt_ids), condemned)

    def opened(self, generation: Generation) -> Generation:
        """The first attempt at an answer: alone from the start if its twin is under suspicion. Raises Poisonous."""
        self.admit(generation)
        if not self.cases:
            return generation
        fingerprint = self.register.fingerprint(generation.prompt_ids)
        twins = [one for one in self.cases.values() if one.trial_tokens and one.fingerprint == fingerprint]
        if twins:
            self.cases[generation.id] = _Case(fingerprint, trial_tokens=twins[0].trial_tokens)
        return self.marked(generation)

    def marked(self, generation: Generation) -> Generation:
        """The attempt, told whether it has to be alone."""
        case = self.cases.get(generation.id)
        alone = case is not None and case.trial_tokens > 0
        return generation if alone == generation.alone else structs.replace(generation, alone=alone)

    def occupied(self, boot: str) -> bool:
        """Whether a suspect of this worker is on trial there."""
        return bool(self.cases) and any(one.cell == boot for one in self.cases.values())

    def enter(self, generation: Generation, boot: str) -> bool:
        """Put a suspect on trial on this replica, if it can be alone there. Raises Poisonous: its twin was condemned."""
        case = self._case(generation)  # anew if its twin (see lane._key) has just closed it
        if not self.cells.enter(case.fingerprint, generation.id):
            return False
        condemned = self.register.condemned(anew=True)
        if condemned.get(case.fingerprint, 0.0) > self.unix_s():
            self.cells.leave(case.fingerprint)
            self._refuse(case.fingerprint, condemned)
        if not self.cells.enter(boot, generation.id):
            self.cells.leave(case.fingerprint)
            return False
        case.cell = boot
        return True

    def made(self, generation: str, tokens: int) -> None:
        """It has made so many tokens on this attempt: cleared, when they are enough."""
        case = self.cases.get(generation)
        if case is not None and case.cell and tokens >= case.trial_tokens:
            case.trial_tokens = 0
            self.ended(generation)

    def ended(self, generation: str) -> None:
        """Its attempt ended, and no engine died: the cell is free."""
        case = self.cases.get(generation)
        if case is not None and case.cell:
            self.cells.leave(case.cell)
            self.cells.leave(case.fingerprint)
            case.cell = ""
            self.freed()

    def closed(self, generation: str) -> None:
        """The answer is over."""
        self.ended(generation)
        self.cases.pop(generation, None)

    async def judge(self, attempt: Generation, fault: EngineLost, tokens: int) -> None:
        """Take down an engine's death, and what follows from it for this answer.

        Raises:
            Poisonous: it is condemned.
        """
        case = self._case(attempt)
        on_trial = case.cell == fault.replica
        inmate = self.cells.inmate(fault.replica)
        mistaken = [one for one in case.deaths if one.boot == fault.replica]
        case.deaths = [one for one in case.deaths if one.boot != fault.replica]  # nobody dies twice: its line broke
        case.deaths.append(
            Death(
                boot=fault.replica,
                crash=fault.crash,
                tokens=tokens,
                unread=len(attempt.prompt_ids) + len(attempt.delivered_ids),
                silent_s=fault.silent_s,
                age_s=fault.age_s,
                queued=fault.queued,
                on_trial=on_trial and bool(case.deaths or not mistaken),
                explained=bool(inmate) and inmate != attempt.id,
            )
        )
        verdict = poison.after_death(case.deaths, self.clear_tokens)
        if isinstance(verdict, Condemned) and not verdict.certain:
            verdict = await self._confirm(case, verdict)
        if isinstance(verdict, Condemned):
            raise self._condemned(attempt, case, verdict)
        if on_trial:  # its name stays on the door of the dead engine
            case.cell = ""
            self.cells.leave(case.fingerprint)
            self.freed()
        if isinstance(verdict, Innocent):
            case.trial_tokens = 0
            return
        if isinstance(verdict, Suspect) and not case.trial_tokens:
            self.emit(RequestSuspected(generation=attempt.id, fingerprint=case.fingerprint, why=verdict.why))
        case.trial_tokens = verdict.tokens
        self._refuse(case.fingerprint, self.register.condemned())

    def _case(self, attempt: Generation) -> _Case:
        if attempt.id not in self.cases:
            self.cases[attempt.id] = _Case(self.register.fingerprint(attempt.prompt_ids))
        return self.cases[attempt.id]

    async def _confirm(self, case: _Case, verdict: Condemned) -> Condemned | Suspect:
        """A connection that breaks without a word is no proof of a death. Wait for the roster's word."""
        last = case.deaths[-1].boot
        until = self.clock.now() + CONFIRM_S
        while self.clock.now() < until and last in self.lines.listed and last not in self.lines.connected:
            await self.lines.changed(min(0.05, until - self.clock.now()))
        alive = next((one.boot for one in case.deaths if one.boot in self.lines.connected), "")
        if not alive:
            return verdict
        case.deaths = [one for one in case.deaths if one.boot != alive]
        return Suspect("an engine that was taken for dead lives", self.clear_tokens)

    def _condemned(self, attempt: Generation, case: _Case, verdict: Condemned) -> Poisonous:
        """Put it on the register. Its name stays on the door of the dead engine."""
        until = self.unix_s() + self.keep_s
        self.register.condemn(case.fingerprint, until, verdict.why, attempt.tenant)
        self.emit(
            RequestCondemned(generation=attempt.id, fingerprint=case.fingerprint, until_unix_s=until, why=verdict.why)
        )
        case.cell, case.trial_tokens = "", 0
        self.cells.leave(case.fingerprint)
        self.freed()
        return self._poisonous(case.fingerprint, until)

    def _refuse(self, fingerprint: str, condemned: Mapping[str, float]) -> None:
        until = condemned.get(fingerprint, 0.0)
        if until > self.unix_s():
            raise self._poisonous(fingerprint, until)

    def _poisonous(self, fingerprint: str, until: float) -> Poisonous:
        return Poisonous(
            "this request was in flight, as the only suspect, when two engines died: its like is refused for another "
            f"{until - self.unix_s():.0f} s (fingerprint {fingerprint})",
            fingerprint,
            until,
        )


def refuse_condemned(quarantine: Quarantine) -> Layer:
    """Refuse what has cost two engines before it costs anything. It has no part in the answer, so it is no generator."""

    def layer(inner: Service) -> Service:
        def service(generation: Generation) -> AsyncGenerator[Chunk, None]:
            quarantine.admit(generation)
            return inner(generation)

        return service

    return layer
