"""A real `holdfast replica` process for tests, started and ended by pid."""

import os
import signal
import subprocess
import sys
from pathlib import Path


class ReplicaProcess:
    """Runs from construction until `end`. `ready` waits for the line on stdout and returns its words as a dict."""

    def __init__(self, folder: Path, *options: str, env: dict[str, str] | None = None) -> None:
        self.stderr_path = folder / "stderr.txt"
        self.leaving = False  # a signal was sent
        with self.stderr_path.open("ab") as stderr:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "holdfast", "replica", *options],
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
            )

    @property
    def stderr(self) -> str:
        return self.stderr_path.read_text()

    def ready(self) -> dict[str, str]:
        """The words of the ready line: replica, listen, model and, if served, health."""
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline().decode()
        assert line.startswith("ready "), f"it said {line!r} and {self.stderr!r}"
        return dict(word.split("=", 1) for word in line.split() if "=" in word)

    def send(self, number: signal.Signals) -> None:
        self.leaving = True
        self.popen.send_signal(number)

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        return self.popen.wait(timeout=60)

    def end(self) -> None:
        """Kill it if it still runs, and reap it."""
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        if self.popen.stdout is not None:
            self.popen.stdout.close()
