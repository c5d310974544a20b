"""The ports: what the hands must be able to do, at most five methods each. sim/ implements all of them too."""

from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from msgspec import Struct

from holdfast.domain.engine import Abilities
from holdfast.domain.release import Release
from holdfast.domain.replica import Load, Probe
from holdfast.domain.request import Chunk, Finish, Generation, Sampling, TokenLogprob


class Clock(Protocol):
    """Monotonic time. Only those who wait hold one; policies get `now` as an argument."""

    def now(self) -> float:
        """Seconds since some fixed moment."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class Engine(Protocol):
    """One live replica, seen from a gateway."""

    def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        """Token ids after `generation.delivered_ids`, ending with a chunk whose `finish` is set.

        A stop id ends the answer (Finish.STOP) and is itself not among the ids. Finish.LENGTH comes with the last id.

        Closing the generator aborts the work at the replica's next step.

        Raises:
            EngineRefused: nothing was generated.
            EngineLost: cut off midway.
            BadRequest: no replica of this release could serve it (for instance longer than the context).
        """
        ...

    async def probe(self) -> Probe:
        """Ask the replica itself, now.

        Raises:
            EngineLost: it did not answer.
        """
        ...

    def describe(self) -> Release | None:
        """What runs there, or None before it has told."""
        ...

    async def close(self) -> None: ...


class ForeignEngine(Engine, Protocol):
    """A program of somebody else, spoken to in its own dialect by the replica process that keeps it.

    `probe` asks the engine's own counters: `Load.step` is any number that grows whenever it makes progress (tokens made,
    iterations, prompt tokens read) and stands still when it does not. `probe` raises EngineLost where its door is shut or silent.
    """

    async def learn(self) -> Abilities:
        """Find out, by asking, what this build can do. Once, when it is ready; `describe` tells its release afterwards.

        Raises:
            EngineLost: it did not answer, or serves no such model: the sentence says which it serves.
        """
        ...


@dataclass(slots=True)  # written with every token: a Struct takes five times as long to set a field
class Stream:
    """One attempt in flight on a line, as a watcher sees it. Times are the Clock's seconds."""

    generation: str
    submitted_at: float
    prompt_tokens: int
    last_token_at: float | None = None  # or when a token was made again that had been delivered
    tokens: int = 0


class Line(Engine, Protocol):
    """An Engine over one connection to one boot of a replica, with the evidence that a watcher needs.

    `gone` is empty while the connection lives, then says why it ended. `on_gap` is called with the seconds between
    consecutive frames while something was expected (a stream in flight or a ping unanswered).
    """

    on_gap: Callable[[float], None] | None

    @property
    def gone(self) -> str: ...

    @property
    def crash(self) -> str:
        """Once `gone`: what the replica left in its black box, empty when it was ended from outside or the line only broke."""
        ...

    @property
    def boot(self) -> str: ...

    @property
    def in_flight(self) -> int: ...

    @property
    def last_frame_at(self) -> float: ...

    @property
    def oldest_ping_at(self) -> float | None: ...

    @property
    def last_load(self) -> Load: ...

    def streams(self) -> Iterable[Stream]: ...

    def check(self) -> None:
        """Find out without waiting whether the process at the other end is dying: its sockets may take long to say so."""
        ...

    def ping(self) -> None:
        """Ask for a sign of life without waiting; `oldest_ping_at` stays set until it is answered."""
        ...

    def fail(self, why: str, generation: str = "", planned: bool = False) -> None:
        """Fence one generation, or all of them if empty: EngineLost(why) for the waiting callers, Abort for the replica.

        Nothing that the replica says of them later can be delivered. The connection stays.
        """
        ...


class Work(Struct, frozen=True, kw_only=True):
    """One attempt, as the replica's core gets it."""

    prompt_ids: list[int]
    delivered_ids: list[int]
    sampling: Sampling
    max_tokens: int
    seed: int
    stop_ids: tuple[int, ...]


class Produced(Struct):
    """What one step made for one attempt: `ids` may be empty (prefill goes on) and more than one is allowed.

    A stop id is not among `ids`; it shows as Finish.STOP. Finish.LENGTH comes with the last id.
    """

    ticket: int
    ids: list[int]
    finish: Finish | None = None
    logprobs: list[TokenLogprob] | None = None
    cached_tokens: int = 0
    fault: str = ""  # this attempt failed inside the engine (NaN logits, ...): the sentence
    refused: bool = False  # and the engine had not begun with it
    unrepeatable: bool = False  # and the engine is well: the answer does not come out as it was delivered
    again: bool = False  # no ids, for these were delivered before: a sign of life
    param: str = ""  # the fault is the request's own, in this field: no replica of this release would do better


class Core(Protocol):
    """A batch engine inside a replica process: pearl's loop, or the scripted one. Synchronous; one step at a time.

    The process's event loop calls `step` while `busy`; nothing else runs meanwhile, so a step must be short (a prefill is
    cut into chunks).
    """

    def submit(self, ticket: int, work: Work) -> None:
        """Queue an attempt under a ticket number chosen by the caller, unique among live ones.

        Raises:
            BadRequest: it could never run here (too long, token id out of range, ...).
            EngineRefused: the bounded queue is full.
        """
        ...

    def abort(self, ticket: int) -> None:
        """Forget an attempt: its slot is free at the next step. Unknown tickets are ignored."""
        ...

    def step(self) -> list[Produced]:
        """Advance the batch by one step."""
        ...

    def load(self) -> Load: ...

    def release(self) -> Release: ...


@runtime_checkable
class RemoteCore(Protocol):
    """What a Core has besides when its work is done by another process: there is nothing to step while it has brought nothing.

    `on_stir` is set by whoever drives it, and is called when `stirred` becomes true.
    """

    on_stir: Callable[[], None]

    @property
    def stirred(self) -> bool:
        """Whether `step` has something to give, or to raise."""
        ...

    def vouch(self, answer: Callable[[], None]) -> None:
        """Call `answer` at the next sign of life of the other process, however long that takes."""
        ...


class Child(Struct, frozen=True, kw_only=True):
    """A process to run. `name` is unique on its host: replica-0, gateway-0, control.

    `fds` are open descriptors of ours that it gets too: (environment variable, number); it finds the number in the variable.
    `epoch` is the upgrade that it belongs to; the sighting says it back, after an adoption too.
    """

    name: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    log_path: str = ""
    fds: tuple[tuple[str, int], ...] = ()
    epoch: int = 0


class Sighting(Struct, frozen=True, kw_only=True):
    """A process that was seen: `token` proves that it is ours and `start_ticks` that the pid was not reused."""

    name: str
    pid: int
    start_ticks: int
    token: str
    alive: bool
    exit_code: int | None = None
    epoch: int = 0


class Host(Protocol):
    """Where processes run."""

    async def start(self, child: Child) -> Sighting:
        """Start it in a session of its own, so that it outlives us. Raises OSError with the reason."""
        ...

    async def stop(self, name: str, grace_s: float) -> None:
        """SIGTERM, and SIGKILL after the grace; 0 kills at once. Only processes whose identity still matches."""
        ...

    async def look(self) -> tuple[Sighting, ...]:
        """All our processes on this host, adopted ones too, the dead ones until `forget`."""
        ...

    def forget(self, name: str) -> None: ...


class Sheet(Protocol):
    """One named buffer that outlives its writer. Its name says who writes it; there is one writer, and any number of readers."""

    @property
    def buffer(self) -> memoryview:
        """All bytes of it, zeros where nothing was written yet. Readers see what the writer wrote at once, byte by byte."""
        ...

    def held(self) -> bool:
        """Whether the process that created it still lives (frozen counts as alive)."""
        ...

    def close(self) -> None: ...


class Shelf(Protocol):
    """Where the workers of one machine keep what must survive a worker: memory-backed files in one folder, or sim/shelf.py."""

    def create(self, name: str, size: int) -> Sheet:
        """A new sheet of zeros whose bytes are already paid for. Raises OSError: no room, read-only, the name is taken."""
        ...

    def open(self, name: str) -> Sheet | None:
        """Somebody's sheet to read; None when it is gone."""
        ...

    def names(self) -> list[str]: ...

    def remove(self, name: str) -> None:
        """Drop a sheet, or let go of a claim of one's own."""
        ...

    def claim(self, name: str) -> bool:
        """True for the first who asks for this name, on the whole machine, False for everybody after, the holder included.

        It is free again once the holder removes it or dies. Raises OSError.
        """
        ...
