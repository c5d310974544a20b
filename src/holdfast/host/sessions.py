"""Which processes belong to a program that we started in a session of its own, and how all of them are ended.

A foreign engine is several processes, and those below its first one live on when that is killed: vLLM's EngineCore and Worker do,
with the memory of the GPU. They are found by three marks, since each can be lost: the session (a child may open its own), a
token in the environment (setproctitle overwrites what /proc shows of it), and descent from one that is known (an orphan has
lost it).

This file is also a program, `python -I -S sessions.py PID TOKEN`: the guard of one session. It holds the reading end of a pipe
as its standard input. When the other end closes, because the process that holds it has died of whatever cause, or when PID
itself dies, the guard ends the whole session, and then itself. So it must do with the standard library alone. What comes
through the pipe meanwhile are lines `INODE NAME`: files that the session has in shared memory, which outlive a SIGKILL.

Python programs have a process that knows of these files and removes them, once all others that use it are dead: the resource
tracker. So it is spared at first. Where it was killed too, the files are removed that were seen with the session.
"""

import contextlib
import os
import select
import signal
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

TOKEN = "HOLDFAST_ENGINE_TOKEN"
_PROC = Path("/proc")
_ROUNDS = 500  # processes may be born while others are killed; rounds of killing, each a PAUSE_S after the other
PAUSE_S = 0.02
TIDY_S = 2.0  # for a resource tracker, once it is alone: it needs a few milliseconds
_WAY = 10  # niceness: a tenth of the processor beside one that does not give way
_SYS_NICE = 23  # CAP_SYS_NICE's bit
_TRACKER = "multiprocessing.resource_tracker"
_READ_BYTES = 64 * 1024
_MEMORY = Path("/dev/shm")
# What programs keep there for themselves alone: Python's shared memory and semaphores, PyTorch's, NCCL's, our Triton's. A file
# of another name may be somebody else's, though an engine has it mapped: a model that was copied there.
_THEIR_OWN = ("psm_", "sem.mp-", "torch_", "nccl-", "holdfast_triton_")


class Seen(NamedTuple):
    """A process in /proc/PID/stat (proc(5)): one letter of state, parent, session, start time in ticks since boot."""

    pid: int
    state: str
    parent: int
    session: int
    start_ticks: int

    @property
    def alive(self) -> bool:
        """A zombie does not live: it only waits for its parent to notice."""
        return self.state not in "ZX"


def seen(pid: int) -> Seen | None:
    """One process; None where there is none."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The command's name stands in brackets and may hold anything, brackets too: count from the last one.
    fields = text.rpartition(")")[2].split()
    return Seen(pid, fields[0], int(fields[1]), int(fields[3]), int(fields[19]))


def variable(pid: int, name: str) -> str:
    """A variable of its environment, as it was when the process started; empty when it is absent or not ours to read."""
    try:
        entries = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    head = f"{name}=".encode()
    return next((entry[len(head) :].decode("ascii", "replace") for entry in entries if entry.startswith(head)), "")


def words(pid: int) -> list[str]:
    """Its command line; one empty word when it is not there, or not ours to read."""
    try:
        line = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        line = b""
    return line.decode("utf-8", "replace").rstrip("\0").split("\0")


def title(pid: int) -> str:
    """What a process calls itself: the first word of its command line, without the folders; setproctitle writes there."""
    return words(pid)[0].rpartition("/")[2]


def carries(pid: int, token: str) -> bool:
    """Whether this process was started with the token. No token, no proof."""
    return bool(token) and variable(pid, TOKEN) == token


def machine() -> str:
    """Which boot of which machine this is: pids and start times mean nothing in another."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def members(session: int, token: str) -> list[Seen]:
    """The living processes of a session, those that carry the token, and all that descend from either. 0: no session."""
    living = {one.pid: one for one in all_living()}
    found = {pid for pid, one in living.items() if session and one.session == session}
    found |= {pid for pid in living.keys() - found if carries(pid, token)}
    while True:
        more = {pid for pid, one in living.items() if pid not in found and one.parent in found}
        if not more:
            return [living[pid] for pid in sorted(found)]
        found |= more


def give_way(ones: Iterable[Seen], yes: bool) -> None:
    """Let all threads of these compute only when nobody else wants to, or as everybody does again; what they start follows.

    Only where the second can be had after the first, which takes CAP_SYS_NICE (capabilities(7)); else neither is done.
    """
    if not _may_return():
        return
    for one in ones:
        with contextlib.suppress(OSError):  # gone meanwhile
            for thread in (_PROC / str(one.pid) / "task").iterdir():
                os.setpriority(os.PRIO_PROCESS, int(thread.name), _WAY if yes else 0)


def _may_return() -> bool:
    try:
        status = (_PROC / "self/status").read_text()
    except OSError:
        return False
    held = next((line.partition(":")[2] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(held, 16) >> _SYS_NICE & 1)


def kill(ones: Iterable[Seen], spare: bool = False) -> None:
    """SIGKILL for exactly these: through a pidfd, and only where the pid still means the process that was seen.

    `spare`: resource trackers are let live, and thawed. They end by themselves when the others have.
    """
    for one in ones:
        number = signal.SIGCONT if spare and any(_TRACKER in word for word in words(one.pid)) else signal.SIGKILL
        try:
            fd = os.pidfd_open(one.pid)
        except ProcessLookupError:
            continue
        try:
            now = seen(one.pid)
            if now is not None and now.start_ticks == one.start_ticks:
                signal.pidfd_send_signal(fd, number)
        except ProcessLookupError:
            continue
        finally:
            os.close(fd)


def all_living() -> Iterator[Seen]:
    """Every process that lives, but us."""
    for entry in _PROC.iterdir():
        one = seen(int(entry.name)) if entry.name.isdigit() else None
        if one is not None and one.alive and one.pid != os.getpid():
            yield one


class SharedFile(NamedTuple):
    """A file in /dev/shm. Its number proves that the name still means the file that was seen."""

    inode: int
    name: str

    def line(self) -> bytes:
        """How a guard is told of it."""
        return f"{self.inode} {self.name}\n".encode()


def shared_by(ones: Iterable[Seen]) -> set[SharedFile]:
    """The files in shared memory that these processes have mapped, of the kinds that programs keep for themselves.

    By their numbers: a semaphore is mapped under a name that it had for a moment, before its own (sem_open of glibc).
    """
    mapped: set[int] = set()
    for one in ones:
        try:
            maps = (_PROC / str(one.pid) / "maps").read_text(errors="replace")
        except OSError:  # gone meanwhile, or not ours to read
            continue
        mapped |= {int(line.split(maxsplit=5)[4]) for line in maps.splitlines() if f" {_MEMORY}/" in line}
    if not mapped:
        return set()
    with os.scandir(_MEMORY) as entries:
        named = {SharedFile(entry.inode(), entry.name) for entry in entries if entry.name.startswith(_THEIR_OWN)}
    return {file for file in named if file.inode in mapped}


def free_shared(files: Iterable[SharedFile]) -> list[str]:
    """Remove those of these files that are still there, are our user's, and that no living process has mapped; their names.

    To be called when those are gone with whom the files were seen.
    """
    there = {one for one in files if _is_ours(one)}
    free = sorted(there - shared_by(all_living())) if there else []
    for one in free:
        (_MEMORY / one.name).unlink(missing_ok=True)
    return [one.name for one in free]


def _is_ours(one: SharedFile) -> bool:
    try:
        found = (_MEMORY / one.name).lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_ino == one.inode and found.st_uid == os.geteuid()


def _guard(pid: int, token: str) -> None:
    """See the head of this file. The number of the session can't be a stranger's: we were there when its first process died."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    lines = (line.partition(" ") for line in _told_until_over(pid).decode("utf-8", "replace").splitlines())
    shared = {SharedFile(int(inode), name) for inode, _, name in lines if inode.isdecimal() and "/" not in name}
    for turn in range(_ROUNDS):
        left = members(pid, token)
        if not left:
            break
        shared |= shared_by(left)
        kill(left, spare=turn * PAUSE_S < TIDY_S)
        select.select([], [], [], PAUSE_S)
    free_shared(shared)


def _told_until_over(pid: int) -> bytes:
    """Wait for the death of the first process, or the end of the pipe; what has come through it."""
    told = b""
    with contextlib.suppress(ProcessLookupError):  # it was dead before we were
        ending = os.pidfd_open(pid)
        while True:
            ready = select.select([0, ending], [], [])[0]
            some = os.read(0, _READ_BYTES) if 0 in ready else b""
            told += some
            if not some:
                break
    return told


if __name__ == "__main__":
    _guard(int(sys.argv[1]), sys.argv[2])
