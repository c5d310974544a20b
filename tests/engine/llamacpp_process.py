"""A real llama.cpp server for tests: the one inside the xllamacpp wheel, in an environment of its own (make engines)."""

import os
import signal
import subprocess
from pathlib import Path

import holdfast.engine.llamacpp_serve as script

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("HOLDFAST_LLAMACPP_PYTHON") or ROOT / ".venv-llamacpp/bin/python")
ABSENT = f"{PYTHON} is not there: llama.cpp is not installed beside Holdfast (make engines)"
SHIPPED = ROOT / "src/holdfast/shipped/pearl"


class LlamaCppProcess:
    """Runs from construction until `end`; `url` is where it listens."""

    def __init__(self, model: Path, *options: str) -> None:
        words = [str(PYTHON), str(script.__file__), "--model", str(model), *options]
        self.popen = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline().decode()
        assert line.startswith("listening on "), f"it said {line!r}"
        self.url = line.removeprefix("listening on ").strip()

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def stop(self) -> None:
        """SIGSTOP, and wait until no thread of it runs any more."""
        self.send(signal.SIGSTOP)
        os.waitid(os.P_PID, self.popen.pid, os.WSTOPPED)

    def kill(self) -> None:
        """SIGKILL, and reap it."""
        self.popen.kill()
        self.popen.wait()

    def end(self) -> None:
        """Kill it if it still runs, and reap it."""
        self.kill()
        if self.popen.stdout is not None:
            self.popen.stdout.close()
