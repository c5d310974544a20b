"""Levers: a real replica process, with the scripted core, that can be made to misbehave while it runs.

A drill that is to prove what happens when an engine lies, or answers wrongly, or eats all memory, needs an engine that does so
on demand, in a process of its own, under real load. The levers are a private unix socket of the replica, opened only when the
command line names one (`--levers PATH`): a line of JSON in, a line of JSON out. It is served by a thread of its own, so that
levers work whatever state the event loop is in.
"""

import contextlib
import resource
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from holdfast.domain.ports import Produced, Work
from holdfast.domain.request import TokenLogprob
from holdfast.sim.scripted import Mishap, Script, ScriptedCore, _Attempt
from holdfast.sim.tap import Tap

LEVERS = (
    "state",
    "heal",
    "reset",
    "half-open",
    "error",
    "errors",
    "garbage",
    "slow",
    "wrong",
    "lie",
    "memory",
    "prefill",
)
SPARED = "supervisor"  # a half-open connection is a fault of one path; the supervisor stands on the replica's own host
MEMORY_LEFT_BYTES = 64 * 1024 * 1024  # what the process may still take before its limit
FAULT_AFTER_TOKENS = 2
_MOUTHFULS_BYTES = (4 * 1024 * 1024, 64 * 1024)
_LINE_BYTES_MAX = 4096
_ANSWER_S = 5.0


class Pull(Struct, frozen=True, forbid_unknown_fields=True):
    """One lever, pulled. `factor` is for slow; `seed` for garbage; `chunk_tokens` and `s_per_token` for prefill; `share` is for
    errors: of all attempts from now on, evenly spread, each after its first tokens."""

    lever: str
    factor: float = 5.0
    seed: int = 0
    chunk_tokens: int = 2048
    s_per_token: float = 0.0001
    share: float = 0.0


class State(Struct, frozen=True):
    """What a pull has led to. `at`: when it took effect, in seconds of the machine's monotonic clock."""

    at: float
    running: int = 0
    queued: int = 0
    step: int = 0
    connections: int = 0
    why: str = ""  # why nothing was done


class LeveredCore(ScriptedCore):
    """A scripted core with levers. Set by a thread, read by the loop between two steps; each is a plain value."""

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self.tap = Tap()
        self._hoard: list[bytearray] = []
        self._next = dict(zip(script.vocabulary, (*script.vocabulary[1:], script.vocabulary[0]), strict=True))
        self._reading: Pull | None = None
        self._to_read = 0
        self._heal()

    def pull(self, pull: Pull) -> State:
        """Do it. Called by the levers' thread."""
        at = time.monotonic()
        match pull.lever:
            case "state":
                pass
            case "heal":
                self._heal()
                at = self.tap.mute(False)
            case "reset":
                at = self.tap.reset()
            case "half-open":
                at = self.tap.mute(True, SPARED)
            case "garbage":
                at = self.tap.soil(pull.seed)
            case "error":
                self._failing = True
            case "errors":
                self._share = pull.share
            case "slow":
                self._factor = pull.factor
            case "wrong":
                self._wrong = True
            case "lie":
                self.frozen = True
            case "memory":
                self._hungry = True
            case "prefill":
                self._reading = pull
            case other:
                return State(at, why=f"there is no lever {other!r}; there is: {', '.join(LEVERS)}")
        load = self.load()
        return State(at, load.running, load.queued, load.step, self.tap.connections)

    def submit(self, ticket: int, work: Work) -> None:
        """See the port."""
        self._due += self._share
        if self._due >= 1.0:
            self._due -= 1.0
            self.befall(Mishap("fault", FAULT_AFTER_TOKENS))
        super().submit(ticket, work)

    def step(self) -> list[Produced]:
        """The scripted step, spoilt by whatever lever is pulled."""
        if self._hungry:
            self._eat()
        self._to_read = self._reading.chunk_tokens if self._reading is not None else 0
        produced = super().step()
        if self._wrong:
            for one in produced:
                self._spoil(one)
        if self._failing and produced:
            self._failing = False
            produced = [self._failed(one) for one in produced]
        self._dawdle()
        return produced

    def _heal(self) -> None:
        self.frozen = self._failing = self._wrong = self._hungry = False
        self._factor = 1.0
        self._share = self._due = 0.0

    def _spoil(self, one: Produced) -> None:
        one.ids = [self._next.get(token, token) for token in one.ids]
        if one.logprobs is not None:
            one.logprobs = [
                TokenLogprob(
                    self._next.get(row.id, row.id), row.logprob, tuple((self._next.get(i, i), p) for i, p in row.top)
                )
                for row in one.logprobs
            ]

    def _failed(self, one: Produced) -> Produced:
        self.abort(one.ticket)
        return Produced(one.ticket, [], fault="scripted: told to fail every answer once")

    def _dawdle(self) -> None:
        """A slow step holds the loop, as a slow kernel would."""
        rest_s = (self._factor - 1.0) * self.script.token_s
        if self._reading is not None:
            rest_s += (self._reading.chunk_tokens - self._to_read) * self._reading.s_per_token
        if rest_s > 0:
            time.sleep(rest_s)

    def _advance(self, attempt: _Attempt) -> Produced | None:
        """With the prefill lever one step reads at most so many prompt tokens of all attempts together, as real engines do."""
        if self._reading is not None and attempt.unread > 0:
            taken = min(attempt.unread, self._to_read)
            attempt.unread -= taken
            self._to_read -= taken
            if attempt.unread > 0:
                return Produced(attempt.ticket, [])
        return super()._advance(attempt)

    def _eat(self) -> None:
        """Lower the limit of address space to little more than is in use, then take it all.

        Raises:
            MemoryError: always, by the allocator itself.
        """
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY_LEFT_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
        for mouthful in _MOUTHFULS_BYTES[:-1]:
            with contextlib.suppress(MemoryError):
                while True:
                    self._hoard.append(bytearray(mouthful))
        while True:
            self._hoard.append(bytearray(_MOUTHFULS_BYTES[-1]))


def serve_levers(path: Path, obey: Callable[[Pull], State]) -> threading.Thread:
    """Listen at `path`, for the owner only, and obey line after line until the process ends. Raises OSError."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(8)

    def serve() -> None:
        while True:
            visitor, _ = listener.accept()
            with visitor, contextlib.suppress(OSError):
                visitor.settimeout(1.0)
                visitor.sendall(msgspec.json.encode(_obeyed(visitor.recv(_LINE_BYTES_MAX), obey)) + b"\n")

    thread = threading.Thread(target=serve, name="levers", daemon=True)
    thread.start()
    return thread


def _obeyed(line: bytes, obey: Callable[[Pull], State]) -> State:
    try:
        pull = msgspec.json.decode(line, type=Pull)
    except msgspec.MsgspecError as error:
        return State(time.monotonic(), why=f"not a pull: {error}")
    return obey(pull)


def pull_lever(path: Path, pull: Pull) -> State:
    """Pull a lever of the replica that listens at `path`, and wait until it took effect.

    Raises:
        OSError: nobody obeys there, or not in time.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as wire:
        wire.settimeout(_ANSWER_S)
        wire.connect(str(path))
        wire.sendall(msgspec.json.encode(pull))
        said = wire.recv(_LINE_BYTES_MAX)
    try:
        return msgspec.json.decode(said, type=State)
    except msgspec.MsgspecError as error:
        raise OSError(f"{path} did not obey {pull.lever}: {error}") from error
