"""The systems under measurement, each as processes on fixed cores: the gateway alone on one, everything else on the other."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from engines import BOOT

import holdfast as package
from holdfast.domain.roster import Place, Roster
from holdfast.domain.settings_text import read
from holdfast.store import snapshot
from holdfast.store.folder import folder_of, keep_settings

HERE = Path(__file__).parent
PEARL = Path(package.__file__).parent / "shipped" / "pearl"
PEERS = HERE.parent / ".venv-peers"
ROUTER = "sglang-router==0.3.2"
GATEWAY_CORE, OTHER_CORE = 0, 1
START_S = 30.0


class Missing(RuntimeError):
    """A rig can't be had here; the sentence says why."""


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port


@contextlib.contextmanager
def process(
    argv: list[str], core: int | tuple[int, ...], log: Path, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A child on one core, or on several; gone at the end."""
    wanted = os.environ | (env or {})
    with log.open("wb") as out, subprocess.Popen(argv, stdout=out, stderr=out, env=wanted) as child:
        os.sched_setaffinity(child.pid, {core} if isinstance(core, int) else core)
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()


def wait_for_http(port: int, path: str, child: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the path answers 200. Raises Missing with the end of the log if the child dies or takes too long."""
    until = time.monotonic() + START_S
    while time.monotonic() < until and child.poll() is None:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer,
        ):
            if answer.status == 200:
                return
        time.sleep(0.1)
    raise Missing(f"no 200 from port {port}{path}: {log.read_text('utf-8', 'replace')[-2000:]}")


@contextlib.contextmanager
def http_engine() -> Iterator[int]:
    """The instant OpenAI-wire engine. Yields its port."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "engine.log"
        argv = [sys.executable, str(HERE / "engines.py"), "--port", str(port)]
        with process(argv, OTHER_CORE, log) as child:
            wait_for_http(port, "/v1/models", child, log)
            yield port


@contextlib.contextmanager
def holdfast() -> Iterator[tuple[int, int]]:
    """One gateway worker over one instant engine. Yields (port, gateway's pid)."""
    with tempfile.TemporaryDirectory() as root:
        port = free_port()
        toml = (
            f'[site]\nstate_dir = "{root}/state"\n[gateway]\nport = {port}\n'
            '[replica]\nengine = "scripted"\nslots = 64\n[admission]\nrequests_per_s = 1e9\nburst = 1e9\n'
            f'[model]\npath = "{PEARL}"\nname = "pearl"\n'
        )
        settings = read(toml)
        folder = folder_of(settings)
        folder.make()
        keep_settings(folder, settings)
        path = folder.socket("replica-0")
        log = Path(root) / "engine.log"
        with process([sys.executable, str(HERE / "engines.py"), "--unix", str(path)], OTHER_CORE, log) as child:
            until = time.monotonic() + START_S
            while not path.exists():
                if time.monotonic() > until or child.poll() is not None:
                    raise Missing(f"the instant engine did not start: {log.read_text('utf-8', 'replace')[-2000:]}")
                time.sleep(0.05)
            place = Place(replica="replica-0", address=f"unix:{path}", boot=BOOT, pid=child.pid)
            snapshot.put(folder.roster, Roster(epoch=1, places=(place,)))
            log = Path(root) / "gateway.log"
            argv = [sys.executable, "-P", "-m", "holdfast", "gateway", f"--settings={folder.settings}"]
            with process(argv, GATEWAY_CORE, log) as gateway:
                wait_for_http(port, "/health/ready", gateway, log)
                yield port, gateway.pid


@contextlib.contextmanager
def router() -> Iterator[tuple[int, int]]:
    """sglang-router over the instant HTTP engine. Yields (port, its pid). Raises Missing."""
    python = PEERS / "bin" / "python"
    if not python.exists() or not _installed(python):
        try:
            subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True, capture_output=True)
            subprocess.run([str(python), "-m", "pip", "install", "-q", ROUTER], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Missing(f"{ROUTER} can't be installed here: {error}") from error
    port, metrics = free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder, http_engine() as engine:
        log = Path(folder) / "router.log"
        argv = [str(python), "-m", "sglang_router.launch_router", "--host", "127.0.0.1", "--port", str(port)]
        argv += ["--worker-urls", f"http://127.0.0.1:{engine}", "--policy", "round_robin", "--log-level", "warn"]
        argv += ["--prometheus-port", str(metrics)]
        with process(argv, GATEWAY_CORE, log) as child:
            wait_for_http(port, "/v1/models", child, log)
            yield port, child.pid


def _installed(python: Path) -> bool:
    return subprocess.run([str(python), "-c", "import sglang_router"], capture_output=True, check=False).returncode == 0


def cpu_s(pid: int) -> float:
    """Processor seconds that a process and its threads have used: fields 14 and 15 of /proc/PID/stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Resident memory."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0
