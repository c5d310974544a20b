"""The Host port over processes of this machine.

Children get a session of their own, so that neither Ctrl-C nor our death reaches them. Every process, child or adopted, is
held by a pidfd: it becomes readable at the moment of death, also of processes that are not our children, and a signal sent
through it can't hit a stranger to whom the kernel gave the same pid.
"""

import asyncio
import errno
import os
import select
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol

from holdfast.domain.ports import Child, Clock, Sighting
from holdfast.host import proc

LOG_BYTES_MAX = 8 * 1024 * 1024  # a log that is longer than this when its process starts is set aside first


class Births(Protocol):
    """Where the host writes down whom it started. A record with pid 0 is a start that may not have happened."""

    def write(self, sighting: Sighting) -> None: ...
    def read(self) -> list[Sighting]: ...
    def remove(self, name: str) -> None: ...


class _Held:
    """One process, held by its pidfd."""

    def __init__(self, birth: Sighting, pid: int, popen: subprocess.Popen[bytes] | None) -> None:
        self.name, self.pid, self.token, self.popen = birth.name, pid, birth.token, popen
        self.epoch = birth.epoch
        self.pidfd = os.pidfd_open(pid)
        # Read after the pidfd was opened: if both match the record, the pidfd holds the process that was meant.
        self.start_ticks = proc.start_ticks(pid)
        self.gone = asyncio.Event()
        self.exit_code: int | None = None
        self.killer: asyncio.Task[None] | None = None

    def signal(self, number: int) -> None:
        if not self.gone.is_set():
            try:
                signal.pidfd_send_signal(self.pidfd, number)
            except ProcessLookupError:
                return

    def check(self) -> bool:
        """Whether it lives; the first time that it does not, its end is taken down."""
        if self.gone.is_set():
            return False
        if not select.select([self.pidfd], [], [], 0)[0]:
            return True
        self.exit_code = _reap(self.pidfd) if self.popen is None else self.popen.wait()
        self.gone.set()
        return False

    def sighting(self) -> Sighting:
        return Sighting(
            name=self.name,
            pid=self.pid,
            start_ticks=self.start_ticks,
            token=self.token,
            alive=self.check(),
            exit_code=self.exit_code,
            epoch=self.epoch,
        )

    def release(self) -> None:
        """Stop watching; the process itself goes on."""
        asyncio.get_running_loop().remove_reader(self.pidfd)
        os.close(self.pidfd)
        if self.killer is not None:
            self.killer.cancel()
        if self.popen is not None and self.popen.returncode is None:
            # It is meant to outlive us; without this Popen would complain of a child that nobody waited for.
            self.popen.returncode = 0


class Processes:
    """`on_death` is called with the name as soon as a process is gone."""

    def __init__(self, births: Births, clock: Clock, on_death: Callable[[str], None]) -> None:
        self._births, self._clock, self._on_death = births, clock, on_death
        self._held: dict[str, _Held] = {}

    def adopt(self) -> tuple[Sighting, ...]:
        """Find the processes that an earlier supervisor left behind, and hold them. Records of the dead are removed.

        Raises:
            OSError: pidfds can't be had (Linux 5.3 is needed).
        """
        for birth in self._births.read():
            pid = birth.pid or proc.pid_with(birth.token)
            held = self._recognise(birth, pid) if pid else None
            if held is None:
                self._births.remove(birth.name)
                continue
            self._hold(held)
            if not birth.pid:
                self._births.write(held.sighting())
        return tuple(held.sighting() for held in self._held.values())

    async def start(self, child: Child) -> Sighting:
        """See the port. The environment gets HOLDFAST_TOKEN; standard error and output go to the log."""
        before = self._held.get(child.name)
        if before is not None:
            if before.check():
                return before.sighting()
            self.forget(child.name)
        token = os.urandom(16).hex()
        birth = Sighting(name=child.name, pid=0, start_ticks=0, token=token, alive=False, epoch=child.epoch)
        self._births.write(birth)
        try:
            popen = _spawn(child, token)
        except OSError:
            self._births.remove(child.name)
            raise
        try:
            held = _Held(birth, popen.pid, popen)
        except OSError:  # out of file descriptors: what can't be watched must not run
            popen.kill()
            popen.wait()
            self._births.remove(child.name)
            raise
        self._hold(held)
        self._births.write(held.sighting())
        return held.sighting()

    async def stop(self, name: str, grace_s: float) -> None:
        """See the port. It returns at once; `look` tells when the process is gone. Told again, the shorter grace counts."""
        held = self._held.get(name)
        if held is None or not held.check():
            return
        if grace_s <= 0:
            held.signal(signal.SIGKILL)
            return
        held.signal(signal.SIGTERM)
        if held.killer is None:
            held.killer = asyncio.create_task(self._kill_after(held, grace_s), name=f"grace of {name}")

    async def look(self) -> tuple[Sighting, ...]:
        """See the port."""
        return tuple(held.sighting() for held in self._held.values())

    def forget(self, name: str) -> None:
        """Drop a process that is gone, and its record. A living one is kept."""
        held = self._held.get(name)
        if held is not None and not held.check():
            del self._held[name]
            held.release()
            self._births.remove(name)

    def close(self) -> None:
        """Let go of everything: living processes go on, and their records stay for whoever comes next."""
        for held in self._held.values():
            held.release()
        self._held.clear()

    def _recognise(self, birth: Sighting, pid: int) -> _Held | None:
        """The process of this record, or None when its pid means somebody else by now."""
        try:
            held = _Held(birth, pid, None)
        except ProcessLookupError:
            return None
        same_start = held.start_ticks and birth.start_ticks in (0, held.start_ticks)
        if same_start and proc.token(pid) == birth.token:
            return held
        if not held.start_ticks:
            _reap(held.pidfd)  # our own child, dead since before we were: this image of ours took its parent's place
        os.close(held.pidfd)
        return None

    def _hold(self, held: _Held) -> None:
        self._held[held.name] = held
        asyncio.get_running_loop().add_reader(held.pidfd, self._died, held)

    def _died(self, held: _Held) -> None:
        asyncio.get_running_loop().remove_reader(held.pidfd)
        held.check()
        self._on_death(held.name)

    async def _kill_after(self, held: _Held, grace_s: float) -> None:
        waits = {asyncio.ensure_future(self._clock.sleep(grace_s)), asyncio.ensure_future(held.gone.wait())}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        held.signal(signal.SIGKILL)


def _reap(pidfd: int) -> int | None:
    """The exit code of a dead process, negative for a signal as Popen has it; None when its parent is somebody else.

    An adopted process may be our own child all the same: started by an earlier image of this very process, before an upgrade.
    """
    try:
        end = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return None
    if end is None:
        return None
    return end.si_status if end.si_code == os.CLD_EXITED else -end.si_status


def _log(path: Path) -> BinaryIO:
    """Where a child's output goes: on a disk that takes nothing more, nowhere; that is no reason not to start it."""
    try:
        if path.is_file() and path.stat().st_size > LOG_BYTES_MAX:
            path.replace(path.with_name(path.name + ".1"))
        return path.open("ab")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            raise
        return Path(os.devnull).open("ab")


def _spawn(child: Child, token: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, **dict(child.env), proc.TOKEN: token}
    env |= {variable: str(number) for variable, number in child.fds}
    with _log(Path(child.log_path or os.devnull)) as log:
        return subprocess.Popen(
            child.argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=env,
            cwd="/",
            start_new_session=True,
            pass_fds=[number for _, number in child.fds],
        )
