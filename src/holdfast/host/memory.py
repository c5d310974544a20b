"""How much memory a process holds, as Linux tells it."""

from pathlib import Path

_KIB = 1024.0


def resident_mib(pid: int) -> float | None:
    """Resident memory (VmRSS of /proc/PID/status: anonymous, file-backed and shared pages) in MiB; None when nobody can say."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    line = next((line for line in text.splitlines() if line.startswith("VmRSS:")), "")
    words = line.split()
    return (
        int(words[1]) / _KIB if len(words) > 1 else None
    )  # a dead process that nobody has waited for has no such line
