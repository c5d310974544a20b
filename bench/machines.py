"""Gateways as processes of their own, several workers and several machines' worth of them: what rate.py and quota.py measure."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from engines import BOOT
from rigs import HERE, PEARL, Missing, free_port, wait_for_http

from holdfast.domain.roster import Place, Roster
from holdfast.domain.settings_text import read
from holdfast.domain.site import Run
from holdfast.host.doorway import LISTEN_FD
from holdfast.store import snapshot
from holdfast.store.folder import folder_of, keep_settings

START_S = 20.0


@contextlib.contextmanager
def started(
    argv: list[str], log: Path, env: dict[str, str] | None = None, fds: tuple[int, ...] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """A child, gone at the end."""
    wanted = os.environ | (env or {})
    with log.open("wb") as out, subprocess.Popen(argv, stdout=out, stderr=out, env=wanted, pass_fds=fds) as child:
        try:
            yield child
        finally:
            child.send_signal(signal.SIGCONT)
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder with a short path, for sockets."""
    with tempfile.TemporaryDirectory(prefix="hf") as name:
        yield Path(name)


@contextlib.contextmanager
def instant(root: Path) -> Iterator[Place]:
    """The instant engine: one fixed answer, at once."""
    path, log = root / "engine.sock", root / "engine.log"
    with started([sys.executable, str(HERE / "engines.py"), "--unix", str(path)], log) as child:
        _until(path, child, log)
        yield Place(replica="replica-0", address=f"unix:{path}", boot=BOOT, pid=child.pid)


@contextlib.contextmanager
def scripted(root: Path, *words: str) -> Iterator[Place]:
    """A scripted replica with these options."""
    path, run_file, log = root / "replica.sock", root / "replica.run", root / "replica.log"
    argv = [sys.executable, "-P", "-m", "holdfast", "replica", "--engine=scripted", f"--listen=unix:{path}"]
    argv += [f"--model={PEARL}", "--serve-as=pearl", "--name=replica-0", *words]
    with started(argv, log, {"HOLDFAST_RUN_FILE": str(run_file)}) as child:
        _until(run_file, child, log)
        said = snapshot.take(run_file, Run)
        if said is None:
            raise Missing(f"{run_file} can't be read")
        yield Place(replica="replica-0", address=said.listen, boot=said.boot, pid=child.pid)


@contextlib.contextmanager
def redis(root: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A Redis of our own that keeps nothing. Yields (url, process). Raises FileNotFoundError where there is none."""
    port = free_port()
    argv = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with started([*argv, "--dir", str(root)], root / "redis.log") as child:
        yield f"redis://127.0.0.1:{port}/0", child


@contextlib.contextmanager
def machine(root: Path, place: Place, workers: int, toml: str) -> Iterator[int]:
    """One machine's gateway workers on one port, over one replica, with these further settings. Yields the port."""
    root.mkdir()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))
        port: int = listener.getsockname()[1]
        settings = read(
            f'[site]\nname = "bench"\nstate_dir = "{root}/state"\n[gateway]\nport = {port}\nworkers = {workers}\n'
            f'[replica]\nengine = "scripted"\nslots = 1024\n[model]\npath = "{PEARL}"\nname = "pearl"\n{toml}'
        )
        folder = folder_of(settings)
        folder.make()
        keep_settings(folder, settings)
        snapshot.put(folder.roster, Roster(epoch=1, places=(place,)))
        for number in range(workers):
            log, run_file = root / f"gateway-{number}.log", root / f"run-{number}"
            env = {LISTEN_FD: str(listener.fileno()), "HOLDFAST_RUN_FILE": str(run_file)}
            argv = [sys.executable, "-P", "-m", "holdfast", "gateway", f"--settings={folder.settings}"]
            argv.append(f"--name=gateway-{number}")
            child = stack.enter_context(started(argv, log, env, (listener.fileno(),)))
            _until(run_file, child, log)
        wait_for_http(port, "/health/ready", child, log)
        yield port


def _until(path: Path, child: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the file is there. Raises Missing with the end of the log if the child dies or takes too long."""
    until = time.monotonic() + START_S
    while not path.exists():
        if time.monotonic() > until or child.poll() is not None:
            raise Missing(f"{path.name} did not come: {log.read_text('utf-8', 'replace')[-2000:]}")
        time.sleep(0.05)
