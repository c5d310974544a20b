"""The processes that run models inside Triton ("stubs"): found by their parent and their words, and ended when they are no use.

A frozen stub that is only replaced keeps its memory, on a GPU too, so it is killed before its model is loaded anew.
"""

import os
import signal
from pathlib import Path

_SHARED = Path("/dev/shm")
_STUB = "triton_python_backend_stub"


def stubs_of(server_pid: int, model: str) -> tuple[int, ...]:
    """Pids of the live stubs of this server that run this model, the oldest first. None where /proc can't be read."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        ours = int(fields[1]) == server_pid and fields[0] not in "ZX" and words[0].endswith(_STUB)
        if ours and any(f"/{model}/" in word for word in words):
            found.append((int(fields[19]), int(entry.name)))
    return tuple(pid for _, pid in sorted(found))


def end_stubs(server_pid: int, model: str) -> str:
    """SIGKILL for all of them, frozen ones too; half a sentence that says what was done."""
    stubs = stubs_of(server_pid, model)
    ended = 0
    for pid in stubs:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        ended += 1
    return f"{ended} processes of {model} were killed" if ended else f"no process of {model} was left"


def clear_shared(prefix: str) -> int:
    """Remove what a Triton that was killed has left in shared memory; how many files. No Triton of this prefix may run."""
    found = list(_SHARED.glob(f"{prefix}*")) if prefix else []
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)
