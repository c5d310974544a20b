"""What Linux tells about a process under /proc: enough to know that a pid still means the process that we mean."""

import os
from pathlib import Path

from holdfast.domain.ports import Sighting
from holdfast.host import sessions

TOKEN = "HOLDFAST_TOKEN"
_PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def start_ticks(pid: int) -> int:
    """Start time since boot, field 22 of /proc/PID/stat; 0 when there is no such process or it is dead already (a zombie).

    The pair (pid, start_ticks) is unique for one boot of the machine: pids come again, but not within the same tick.
    """
    found = sessions.seen(pid)
    return found.start_ticks if found is not None and found.alive else 0


def token(pid: int) -> str:
    """The token that a child of ours got in its environment; empty for all others."""
    return sessions.variable(pid, TOKEN)


def pid_with(wanted: str) -> int:
    """The process whose environment holds this token; 0 when there is none. Looks at every process that we may read."""
    pids = (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())
    return next((pid for pid in pids if token(pid) == wanted and start_ticks(pid)), 0)


def age_s(ticks: int) -> float:
    """Seconds since a start time as `start_ticks` gives it; 0 for 0."""
    if not ticks:
        return 0.0
    return max(0.0, float((_PROC / "uptime").read_text().split()[0]) - ticks / _TICKS_PER_S)


def running_s(sighting: Sighting) -> float | None:
    """How long the process of this record has run, in seconds; None when it runs no more, or its pid is a stranger's."""
    if not sighting.start_ticks or start_ticks(sighting.pid) != sighting.start_ticks:
        return None
    return age_s(sighting.start_ticks)
