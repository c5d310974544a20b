"""A foreign engine as a child of its replica process: started, listened to, ended, with all that it has started itself.

    engine = EngineProcess(launch, folder, clock, log=AccessFile(path), records=EngineRecordFile.of(run_file))
    engine.start()
    await until_ready(engine, door_is_open, read, told, clock)  # host/engine_start.py
    ...
    await engine.leave()

Nothing of it outlives the replica, whatever that dies of: a guard process (host/sessions.py) ends the session of the engine as
soon as the replica is gone, and what is written down in `records` lets the next life, or the supervisor, end what the guard
could not. When the engine's first process dies by itself, the others are killed at once: they serve nobody any more. What they
leave in shared memory is removed.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct, structs

from holdfast.domain.engine import Launch
from holdfast.domain.engine_record import EngineRecord
from holdfast.domain.ports import Clock
from holdfast.domain.replica import StartFault
from holdfast.host import sessions
from holdfast.host.engine_log import Lines, Tail, level_of
from holdfast.policy.engine_discretion import discreet

_LOG = logging.getLogger("holdfast.engine")
_READ_BYTES = 64 * 1024
_COPIED_MAX, _COPIED_S = 20, 10.0  # so many of its warnings and errors go to our own log within so many seconds
_GONE_S = 10.0  # what is killed and stays longer than this hangs in a driver
_LAST_LINES_S = 1.0  # for what is still in the pipe when all who could write to it are dead


class EngineNotStarted(Exception):
    """The engine could not be brought up. `code`: trying again changes nothing, and why; None: the next start may succeed."""

    def __init__(self, code: StartFault | None, why: str) -> None:
        super().__init__(why)
        self.code, self.why = code, why


class EngineExit(Struct, frozen=True):
    """How its first process ended: an exit code, negative for a signal."""

    code: int

    def words(self) -> str:
        """The rest of a sentence that begins with the engine."""
        if self.code >= 0:
            return f"ended with code {self.code}"
        known = {one.value: one.name for one in signal.Signals}
        return f"was ended by {known.get(-self.code, f'signal {-self.code}')}"


class Log(Protocol):
    """Where its lines are kept; store/access.py's AccessFile is one."""

    def write(self, line: bytes) -> None: ...
    def close(self) -> None: ...


class Records(Protocol):
    """Where it is written down who runs; store/engine_record.py is one. Both raise OSError."""

    def write(self, record: EngineRecord) -> None: ...
    def remove(self) -> None: ...


class EngineProcess:
    """One life of one engine program. `on_line` is called with each line that it says; `ended` is set when all of it is gone.
    `on_death` is called at the moment in which its first process has ended, or one that it can't do without, with a sentence.

    `folder` is where its files are written and where it runs. An event loop must run. Once it serves, what it says may quote
    prompts: then only what policy/engine_discretion.py lets through goes to the logs, unless they are to be `whole`.
    """

    def __init__(
        self, launch: Launch, folder: Path, clock: Clock, *, log: Log, records: Records, whole: bool = False
    ) -> None:
        self.launch, self.ended = launch, asyncio.Event()
        self.on_line: Callable[[str], None] | None = None
        self.on_death: Callable[[str], None] | None = None
        self.exit: EngineExit | None = None
        self._folder, self._clock, self._log, self._records = folder, clock, log, records
        self._lines, self._tail, self._allowance = Lines(), Tail(), _Allowance(clock)
        self._popen: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._pidfd, self._pipe = -1, -1
        self._vital: dict[int, int] = {}  # pid -> pidfd
        self._shared: set[sessions.SharedFile] = set()
        self._said_all = asyncio.Event()
        self._whole, self._discreet = whole, False
        self._finishing: asyncio.Task[None] | None = None
        token = os.urandom(16).hex()
        self._record = EngineRecord(kind=launch.kind, token=token, machine=sessions.machine())

    @property
    def pid(self) -> int:
        """Of its first process; 0 before the start."""
        return self._record.pid

    def lines(self) -> list[str]:
        """The last that it said, at most LINES_KEPT lines; to be looked at and not to be told: they may quote prompts."""
        return self._tail.lines()

    def last_error(self) -> str:
        """The last line of an error, or its last line; empty when it said nothing. Not to be told once it serves, either."""
        return self._tail.last_error()

    def start(self) -> None:
        """Write its files and run it, with exactly the environment that the launch names, and a token.

        Raises:
            EngineNotStarted: its program is not there, or can't be run.
            OSError: the machine refuses: a folder that can't be written, no process or descriptor left.
        """
        launch = self.launch
        env = dict(launch.env)
        program = shutil.which(launch.argv[0], path=env.get("PATH", os.defpath))
        if program is None:
            raise EngineNotStarted(
                StartFault.SETTINGS, f"{launch.argv[0]} is no program that can be run: see [engine] program"
            )
        self._write_files()
        self._records.write(self._record)
        env[sessions.TOKEN] = self._record.token
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            self._popen = subprocess.Popen(
                (program, *launch.argv[1:]),
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                stderr=theirs,
                env=env,
                cwd=self._folder,
                start_new_session=True,
            )
        except OSError:
            os.close(ours)
            self._records.remove()
            raise
        finally:
            os.close(theirs)
        self._hold(self._popen, ours)
        born = sessions.seen(self.pid)
        sessions.give_way([born] if born is not None else [], True)

    def serves(self) -> None:
        """From now on it is asked by others, and its log is kept with discretion."""
        self._discreet = not self._whole
        self.note_members()

    def note_members(self) -> None:
        """Write down who belongs to it now, and what of shared memory; to be called when it has grown. A full disk is no
        reason to fail."""
        found = sessions.members(self.pid, self._record.token)
        members = tuple((one.pid, one.start_ticks) for one in found)
        before = len(self._shared)
        self._note_shared(found)
        if (members != self._record.members or len(self._shared) > before) and not self.ended.is_set():
            self._record = structs.replace(self._record, members=members, shared=tuple(sorted(self._shared)))
            try:
                self._records.write(self._record)
            except OSError as error:
                _LOG.warning("who belongs to the engine can't be written down: %s", error)

    def _note_shared(self, ones: list[sessions.Seen]) -> None:
        """Remember what these have in shared memory, and tell the guard."""
        new = sessions.shared_by(ones) - self._shared
        self._shared |= new
        if self._guard is not None and self._guard.stdin is not None:
            for one in new:
                with contextlib.suppress(OSError):  # it is gone, or frozen
                    os.write(self._guard.stdin.fileno(), one.line())

    def compete(self) -> None:
        """It is ready: from now on it computes as everybody else does. Until then it gives way to those that serve."""
        sessions.give_way(sessions.members(self.pid, self._record.token), False)

    def stand_or_fall_with(self, titles: tuple[str, ...]) -> None:
        """Take the death of any of its processes whose title begins so for its own: the first one may need seconds to notice.

        To be called when it is ready. Where no descriptor is left, its own notice must do.
        """
        for one in sessions.members(self.pid, self._record.token):
            title = sessions.title(one.pid)
            if one.pid == self.pid or not title.startswith(titles):
                continue
            with contextlib.suppress(OSError):
                self._vital[one.pid] = fd = os.pidfd_open(one.pid)
                asyncio.get_running_loop().add_reader(fd, self._lame, one.pid, title)

    def _lame(self, pid: int, title: str) -> None:
        fd = self._vital.pop(pid)
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)
        if self.exit is None:
            self._tell_death(f"{title} of the engine has ended")
            self.kill()

    def _tell_death(self, why: str) -> None:
        told, self.on_death = self.on_death, None
        if told is not None:
            told(why)

    def kill(self) -> None:
        """SIGKILL for all of it, now. `ended` tells when it is gone."""
        if self._popen is not None and not self.ended.is_set():
            found = sessions.members(self.pid, self._record.token)
            self._note_shared(found)
            sessions.kill(found, spare=True)

    async def leave(self, grace_s: float | None = None) -> None:
        """End it: its own signal for its first process, and SIGKILL for all when the grace is over (default: the launch's).

        Returns when nothing of it is left. A frozen one is not asked first. Cancelled, it kills. Twice is harmless.
        """
        if self._popen is None:
            return
        now = sessions.seen(self.pid)
        try:
            if self.exit is None and now is not None and now.state not in "Tt":
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, signal.Signals[self.launch.leave.signal])
                await self._within(self.ended.wait(), self.launch.leave.grace_s if grace_s is None else grace_s)
        finally:
            self.kill()
        await self.ended.wait()

    def _write_files(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        root = self._folder.resolve()
        for name, text in self.launch.files:
            path = (root / name).resolve()
            if root not in path.parents:
                raise PermissionError(f"{name} would be written outside {root}")
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
            path.write_text(text)

    def _hold(self, popen: subprocess.Popen[bytes], pipe: int) -> None:
        """Watch it, have it guarded, and write it down. What can't be watched must not run."""
        self._pipe = pipe
        try:
            self._pidfd = os.pidfd_open(popen.pid)
            born = sessions.seen(popen.pid)
            ticks = born.start_ticks if born is not None else 0
            self._record = structs.replace(self._record, pid=popen.pid, start_ticks=ticks)
            self._guard = subprocess.Popen(
                (sys.executable, "-I", "-S", sessions.__file__, str(popen.pid), self._record.token),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
                start_new_session=True,
            )
            if self._guard.stdin is not None:
                os.set_blocking(self._guard.stdin.fileno(), False)
            self._records.write(self._record)
        except OSError:
            popen.kill()
            popen.wait()
            self._close()
            self._records.remove()
            raise
        os.set_blocking(pipe, False)
        loop = asyncio.get_running_loop()
        loop.add_reader(pipe, self._read)
        loop.add_reader(self._pidfd, self._died)

    def _read(self) -> None:
        try:
            data = os.read(self._pipe, _READ_BYTES)
        except BlockingIOError:
            return
        for line in self._lines.feed(data) if data else self._lines.end():
            self._hear(line)
        if not data:
            asyncio.get_running_loop().remove_reader(self._pipe)
            self._said_all.set()

    def _hear(self, line: str) -> None:
        self._tail.add(line)
        kept = discreet(line) if self._discreet else line
        if kept:
            self._log.write(kept.encode() + b"\n")
        level = level_of(line)
        if kept and level > logging.INFO and self._allowance.takes():
            _LOG.log(level, "%s: %s", self.launch.kind, kept)
        if self.on_line is not None:
            self.on_line(line)

    def _died(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        if self._popen is not None:
            self.exit = EngineExit(self._popen.wait())
            self._tell_death(f"the engine {self.exit.words()}")
        self._finishing = asyncio.create_task(self._finish(), name="end of the engine")

    async def _finish(self) -> None:
        """End the rest, hear what they said last, and let go of everything."""
        began = self._clock.now()
        while left := sessions.members(self.pid, self._record.token):
            took_s = self._clock.now() - began
            if took_s > _GONE_S:
                _LOG.error("killed, and still there: %s", ", ".join(str(one.pid) for one in left))
                break
            self._note_shared(left)
            sessions.kill(left, spare=took_s < sessions.TIDY_S)
            await self._clock.sleep(sessions.PAUSE_S)
        sessions.free_shared(self._shared)
        await self._within(self._said_all.wait(), _LAST_LINES_S)
        asyncio.get_running_loop().remove_reader(self._pipe)
        try:
            if not left:
                self._records.remove()
        except OSError as error:
            _LOG.warning("the record of the engine can't be removed: %s", error)
        self._close()
        self.ended.set()

    def _close(self) -> None:
        self._log.close()
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.kill()
            self._guard.wait()
            self._guard.stdin.close()
        for fd in self._vital.values():
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)
        self._vital.clear()
        for fd in (self._pidfd, self._pipe):
            if fd >= 0:
                os.close(fd)
        self._pidfd = self._pipe = -1

    async def _within(self, wait: Coroutine[Any, Any, object], seconds: float) -> None:
        """Wait for it, at most so long."""
        waits = {asyncio.ensure_future(wait), asyncio.ensure_future(self._clock.sleep(seconds))}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()


class _Allowance:
    """How many lines may be copied to our own log: an engine that complains of each token must not fill it."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._since, self._taken = clock, clock.now(), 0

    def takes(self) -> bool:
        now = self._clock.now()
        if now - self._since > _COPIED_S:
            self._since, self._taken = now, 0
        self._taken += 1
        return self._taken <= _COPIED_MAX
