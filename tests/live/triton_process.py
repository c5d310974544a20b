"""A real tritonserver for tests, on a repository that Holdfast wrote, ended with its whole group."""

import os
import signal
import subprocess
import sysconfig
from pathlib import Path

from holdfast.domain.engine import Launch
from holdfast.domain.fault import EngineLost
from holdfast.domain.triton import STREAM, UNARY, PearlPlan
from holdfast.engine.triton import TritonEngine, TritonSettings
from holdfast.host.clock import MonotonicClock
from holdfast.host.ports import free_ports
from holdfast.host.triton_install import find_triton, lay_out_backends
from holdfast.host.triton_stubs import stubs_of
from holdfast.policy.triton_launch import TritonPlan, launch_triton
from holdfast.policy.triton_repository import PearlServing, pearl_repository

ROOT = Path(__file__).parents[2]
CLOCK = MonotonicClock()
SHIPPED = ROOT / "src/holdfast/shipped/pearl"
KEY = "k-of-this-test"
PATHS = (str(ROOT / "src"), sysconfig.get_path("purelib"))


def triton_python() -> Path:
    """The Python of Triton's own environment; it may not be there."""
    return Path(os.environ.get("HOLDFAST_TRITON_PYTHON", ROOT / ".venv-triton/bin/python"))


def absent() -> str:
    """Why no real Triton can be run here; empty: one can."""
    try:
        find_triton(str(triton_python()))
    except ValueError as error:
        return f"no real Triton here: {error} (make triton, or HOLDFAST_TRITON_PYTHON)"
    return ""


class TritonProcess:
    """Runs from construction until `end`. `ready_s` is how long its start took, once `until_ready` has returned."""

    def __init__(self, folder: Path, slots: int = 4, unary_batch: int = 0) -> None:
        self.folder = folder.resolve()
        plan = PearlPlan(model=str(SHIPPED), serve_as="pearl", slots=slots, context_tokens_max=512, queue_max=2)
        grpc_port, self.http_port = free_ports(2)
        serving = PearlServing(plan=plan, paths=PATHS, unary_batch_max=unary_batch)
        launch = launch_triton(
            TritonPlan(
                install=lay_out_backends(find_triton(str(triton_python())), self.folder),
                folder=str(self.folder),
                files=pearl_repository(serving),
                models=(STREAM, UNARY) if unary_batch else (STREAM,),
                grpc_port=grpc_port,
                http_port=self.http_port,
                key=KEY,
            )
        )
        self.url, self.log, self.began = launch.url, self.folder / "triton.log", CLOCK.now()
        self.popen = self._start(launch)
        self.ready_s = 0.0

    def _start(self, launch: Launch) -> "subprocess.Popen[bytes]":
        for path, text in launch.files:
            place = self.folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        with self.log.open("ab") as log:
            return subprocess.Popen(
                launch.argv, env=dict(launch.env), cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )

    def engine(self) -> TritonEngine:
        """An adapter to it; to be made in the event loop that uses it."""
        return TritonEngine(self.url, CLOCK, TritonSettings(), KEY)

    async def until_ready(self) -> None:
        """Until its model has answered."""
        engine = self.engine()
        try:
            while self.popen.poll() is None and CLOCK.now() - self.began < 90:
                try:
                    await engine.learn()
                except EngineLost as error:
                    last = error
                    await CLOCK.sleep(0.1)
                else:
                    self.ready_s = self.ready_s or CLOCK.now() - self.began
                    return
        finally:
            await engine.close()
        raise AssertionError(f"it did not become ready: {last}\n{self.log.read_text()[-3000:]}")

    def stub(self) -> int:
        """The pid of the newest process that runs the decoupled model."""
        found = stubs_of(self.popen.pid, STREAM)
        assert found, "no process runs the model"
        return found[-1]

    def end(self) -> None:
        """Kill what still runs of its group, and reap it."""
        for pid in self._group():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.popen.wait()

    def _group(self) -> list[int]:
        """All live processes of its session."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                if int(fields[3]) == self.popen.pid and fields[0] != "Z":
                    found.append(int(entry.name))
        return found
