"""The processes that run models inside Triton ("stubs"): found by their parent and their words, and ended when they are no use.

A frozen stub that is only replaced keeps its memory, on a GPU too, so it is killed before its model is loaded anew.
"""

import os
import signal
from pathlib import Path

from holdfast.host import sessions

_SHARED = Path("/dev/shm")
_STUB = "triton_python_backend_stub"


def stubs_of(server_pid: int, model: str) -> tuple[int, ...]:
    """Pids of the live stubs of this server that run this model, the oldest first. None where /proc can't be read."""
    found = []
    for one in sessions.all_living():
        words = sessions.words(one.pid) if one.parent == server_pid else [""]
        if words[0].endswith(_STUB) and any(f"/{model}/" in word for word in words):
            found.append((one.start_ticks, one.pid))
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
