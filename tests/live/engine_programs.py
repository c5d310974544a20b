"""Programs that stand for engines, in a few lines each, and what a test needs to run one and to see all of it end."""

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from holdfast.domain.engine import EngineKind, Launch, Leave
from holdfast.host.clock import MonotonicClock
from holdfast.host.engine_process import EngineProcess
from holdfast.store.access import AccessFile
from holdfast.store.engine_record import EngineRecordFile

PATIENCE_S = 60
KEEPER = Path(__file__).with_name("engine_keeper.py")

WAIT = "\nwhile True: signal.pause()\n"
HEAD = "import os, signal, subprocess, sys\ndef say(*words): print(*words, flush=True)\n"
POLITE = HEAD + "say('up')" + WAIT
STUBBORN = HEAD + "signal.signal(signal.SIGTERM, signal.SIG_IGN); say('up')" + WAIT
# A worker below a core below the first process, as vLLM has them: all of one session, none of them obeys SIGTERM, and the worker
# has lost its environment. The last one has opened a session of its own.
FAMILY = (
    HEAD
    + """
stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\\nwhile True: signal.pause()"
def child(**more):
    one = subprocess.Popen([sys.executable, '-S', '-c', stubborn], stdout=subprocess.PIPE, **more)
    one.stdout.readline()
    return one.pid
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say('family', os.getppid(), os.getpid(), child(env={}), child(start_new_session=True))
"""
    + WAIT
)


def launch(code: str, **more: object) -> Launch:
    """A program of this kind: `-S` starts it in a tenth of the time."""
    return Launch(**{"kind": EngineKind.VLLM, "argv": (sys.executable, "-S", "-c", code), "start_s": 30.0, **more})


class Kept:
    """One engine, its lines as they come, and where it writes."""

    def __init__(self, folder: Path, wanted: Launch, whole: bool = False) -> None:
        self.folder, self.lines = folder, asyncio.Queue[str]()
        self.records = EngineRecordFile.of(folder / "replica-0.json")
        self.clock = MonotonicClock()
        self.process = EngineProcess(
            wanted,
            folder / "engine",
            self.clock,
            log=AccessFile(folder / "engine.log"),
            records=self.records,
            whole=whole,
        )
        self.process.on_line = self.lines.put_nowait

    async def said(self, head: str) -> list[str]:
        """The words of the next line that begins so."""
        while True:
            line = await asyncio.wait_for(self.lines.get(), PATIENCE_S)
            if line.startswith(head):
                return line.split()

    async def family(self) -> list[int]:
        return [int(word) for word in (await self.said("family"))[1:]]


@asynccontextmanager
async def kept(
    folder: Path, code: str = POLITE, leave: Leave | None = None, whole: bool = False, **more: object
) -> AsyncIterator[Kept]:
    """Start it; whatever the test does, nothing of it is left."""
    one = Kept(folder, launch(code, leave=leave or Leave(grace_s=PATIENCE_S), **more), whole)
    one.process.start()
    try:
        yield one
    finally:
        one.process.kill()
        await asyncio.wait_for(one.process.ended.wait(), PATIENCE_S)


def pidfds(*pids: int) -> list[int]:
    """To be opened while they live: a pid alone may soon be a stranger's."""
    return [os.pidfd_open(pid) for pid in pids]


def all_gone(fds: list[int], within_s: float = PATIENCE_S, close: bool = True) -> bool:
    """Whether each of these processes ends within so many seconds; `close`: nobody will ask again."""
    for fd in fds:
        if not select.select([fd], [], [], within_s)[0]:
            return False
        if close:
            os.close(fd)
    return True


class Keeper:
    """A process that keeps an engine, as a replica does; it can be killed, and its guard with it."""

    def __enter__(self) -> "Keeper":
        return self

    def __exit__(self, *_: object) -> None:
        if self.popen.returncode is None:
            self.kill()
        for fd in self.fds:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            os.close(fd)

    def __init__(self, folder: Path, code: str = FAMILY) -> None:
        self.records = EngineRecordFile.of(folder / "replica-0.json")
        words = [sys.executable, str(KEEPER), str(folder), code]
        self.popen = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        self.pids = [int(word) for word in self.popen.stdout.readline().split()]
        self.fds = pidfds(*self.pids)

    def guard(self) -> int:
        """Its only child besides the engine."""
        children = Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children").read_text().split()
        (found,) = [int(child) for child in children if int(child) != self.pids[0]]
        return found

    def kill_guard(self) -> None:
        (fd,) = fds = pidfds(self.guard())
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        assert all_gone(fds)

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.popen.send_signal(number)
        self.popen.wait()
        self.popen.stdout.close()
