"""A real site for tests: `holdfast up` in a process of its own, on free ports, with its state in a temporary folder.

    with Site(tmp_path, replica={"count": 2}) as site:
        site.wait_ready()
        answer = httpx.get(f"{site.url}/models")

Nothing here sleeps blindly: each wait polls a condition, is bounded, and on failure says what the site has told so far.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from holdfast.host.ports import free_ports

T = TypeVar("T")
PATIENCE_S = 60.0  # a starved machine loads libraries slowly; a healthy one needs a second or two
POLL_S = 0.02


class TooLate(AssertionError):
    """What was waited for did not come."""


def wait_for(what: str, find: Callable[[], T | bool | None], patience_s: float = PATIENCE_S, tell: Any = None) -> T:
    """The first truthy result of `find`; `tell()` is added to the complaint when it does not come."""
    until = time.monotonic() + patience_s
    while True:
        found = find()
        if found:
            return found
        if time.monotonic() > until:
            raise TooLate(f"{what} did not happen in {patience_s:.0f} s\n{tell() if tell else ''}")
        select.select([], [], [], POLL_S)


def alive(pid: int) -> bool:
    """Whether this process runs (a zombie does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


class StateFolder:
    """What a site has written down, read afresh at each question."""

    state: Path

    def find_event(self, kind: str, **fields: Any) -> dict[str, Any] | None:
        for event in self.events():
            if event["event"] == kind and all(event.get(name) == value for name, value in fields.items()):
                return event
        return None

    def events(self) -> list[dict[str, Any]]:
        """All events so far, oldest first."""
        path = self.state / "events.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def view(self) -> dict[str, Any]:
        """The supervisor's last view of the site."""
        return _json(self.state / "site.json")

    def roster(self) -> list[dict[str, Any]]:
        """Places that gateways may send to."""
        return list(_json(self.state / "roster.json").get("places", []))

    def pids(self) -> dict[str, int]:
        """Name -> pid of all processes that the supervisor has started and not forgotten."""
        births = [_json(path) for path in sorted((self.state / "birth").glob("*.json"))]
        return {birth["name"]: birth["pid"] for birth in births if birth.get("pid")}

    def pid(self, name: str) -> int:
        """One process's pid, 0 while it has none."""
        return self.pids().get(name, 0)


class Site(StateFolder):
    """One site. `sections` override the settings: replica={"count": 3}, restart={"free": 9}, ..."""

    def __init__(self, folder: Path, **sections: dict[str, Any]) -> None:
        gateway_port, control_port = free_ports(2)
        self.state = folder / "state"
        self.file = folder / "holdfast.toml"
        tree: dict[str, dict[str, Any]] = {
            "site": {"name": "tested", "state_dir": str(self.state)},
            "replica": {"engine": "scripted", "count": 2, "drain_s": 2.0},
            "gateway": {"port": gateway_port, "drain_s": 2.0},
            "control": {"port": control_port, "health_port": 0},
        }
        for name, keys in sections.items():
            tree.setdefault(name, {}).update(keys)
        self.tree = tree
        self.file.write_text("".join(_section(name, keys) for name, keys in tree.items()))
        self.url = f"http://127.0.0.1:{tree['gateway']['port']}/v1"
        self.control_url = f"http://127.0.0.1:{tree['control']['port']}"
        self.process: subprocess.Popen[str] | None = None
        self.output = folder / "up.log"

    def __enter__(self) -> "Site":
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def up(self) -> None:
        """Start `holdfast up`. Its output is appended to `output`."""
        with self.output.open("a") as out:
            self.process = subprocess.Popen(
                self._command("up", str(self.file)), stdout=out, stderr=out, text=True, start_new_session=True
            )

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "holdfast", *words]

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Another verb, to its end."""
        return subprocess.run(
            self._command(*words), input=stdin, capture_output=True, text=True, timeout=100, check=False
        )

    def wait_ready(self, replicas: int | None = None) -> None:
        """Until so many replicas (default: all) are in the roster and a gateway worker listens."""
        count = self.tree["replica"]["count"] if replicas is None else replicas
        self.wait(f"{count} replicas in service", lambda: self._in_service() >= count)

    def _in_service(self) -> int:
        gateways = [one for one in self.view().get("processes", []) if one["role"] == "gateway"]
        if not any(one["state"] == "serving" for one in gateways):
            return -1
        return len(self.roster())

    def wait(self, what: str, find: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
        """Poll until `find` gives something true, or fail with the site's own words."""
        return wait_for(what, find, patience_s, self._told)

    def wait_event(self, kind: str, **fields: Any) -> dict[str, Any]:
        """The first event of this kind whose fields are equal to those given."""
        return self.wait(f"event {kind} {fields}", lambda: self.find_event(kind, **fields))

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to one process; returns its pid."""
        pid = self.pids()[name]
        os.kill(pid, number)
        return pid

    def stop(self, number: int = signal.SIGINT) -> int:
        """Signal the supervisor and wait for its end; returns its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def _told(self) -> str:
        """Everything that the site has said, for a failing test."""
        logs = sorted((self.state / "log").glob("*.log")) if self.state.exists() else []
        texts = [f"--- {path.name}\n{path.read_text()[-2000:]}" for path in [self.output, *logs] if path.exists()]
        return "\n".join(texts)

    def close(self) -> None:
        """Leave nothing running, whatever the test has done."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pid in self.pids().values():
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


def _section(name: str, keys: dict[str, Any]) -> str:
    return f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())


def _json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found
