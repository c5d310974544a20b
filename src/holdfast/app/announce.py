"""How a child tells its supervisor that it is ready, and where it listens."""

import os
from pathlib import Path

from holdfast.domain.site import Run
from holdfast.host import proc
from holdfast.store import snapshot


def announce(name: str, listen: str, pulse: str = "", health: str = "") -> None:
    """Tell the supervisor that this process is ready and listens there. Does nothing outside a site. Raises OSError."""
    path = os.environ.get("HOLDFAST_RUN_FILE")
    if path:
        pid, token = os.getpid(), os.environ.get(proc.TOKEN, "")
        ticks = proc.start_ticks(pid)
        snapshot.put(
            Path(path),
            Run(
                name=name,
                pid=pid,
                token=token,
                start_ticks=ticks,
                boot=token[:16],
                listen=listen,
                health=health,
                pulse=pulse,
            ),
        )
