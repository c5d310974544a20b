"""A real vLLM before the shipped model, run by hand: for tests and benches that look at vLLM itself and not at a site."""

import os
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from holdfast.domain.fault import EngineLost, EngineRefused
from holdfast.engine.http import HttpDoor
from holdfast.host.clock import MonotonicClock

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "src" / "holdfast" / "shipped" / "pearl"
MODULE = "vllm.entrypoints.launchers.api_server.entry"  # the `vllm` script does not start in builds under another name
START_S = 240.0
CLOCK = MonotonicClock()


def vllm_python() -> Path | None:
    """The interpreter of vLLM's own environment: HOLDFAST_VLLM_PYTHON, or what `make engines` has made."""
    found = Path(os.environ.get("HOLDFAST_VLLM_PYTHON", ROOT / ".venv-vllm" / "bin" / "python"))
    return found if found.exists() else None


class VllmProcess:
    """Runs from construction until `end`; `ready` waits until its door answers. All its processes are one group.

    `words` are added to its command line. It is not pinned to a core, so that two of them don't share one.
    """

    def __init__(self, folder: Path, *words: str, key: str = "", dtype: str = "float32") -> None:
        python = vllm_python()
        assert python is not None
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url, self.key = f"http://127.0.0.1:{port}", key
        self.log_path = folder / "vllm.log"
        argv = [str(python), "-m", MODULE, "--model", str(SHIPPED), "--served-model-name", "pearl"]
        argv += ["--host", "127.0.0.1", "--port", str(port), "--dtype", dtype, "--enforce-eager"]
        argv += ["--generation-config", "vllm", "--enable-prompt-tokens-details", *words]
        env = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": "1",
            **({"VLLM_API_KEY": key} if key else {}),
        }
        with self.log_path.open("ab") as log:
            self.popen = subprocess.Popen(argv, stdout=log, stderr=log, env=env, cwd=folder, start_new_session=True)

    async def ready(self) -> None:
        """Raises EngineLost, with the log's end, where it does not come up."""
        door, deadline = HttpDoor(self.url, CLOCK, self.key), CLOCK.now() + START_S
        try:
            while CLOCK.now() < deadline and self.popen.poll() is None:
                with suppress(EngineLost, EngineRefused):
                    if (await door.ask("GET", "/health", None, 2.0)).status == 200:
                        return
                await CLOCK.sleep(0.2)
        finally:
            await door.close()
        raise EngineLost(f"vLLM did not come up: {self.log_path.read_text('utf-8', 'replace')[-2000:]}")

    def children(self) -> dict[str, int]:
        """Its processes by the names that they give themselves: EngineCore, Worker."""
        found: dict[str, int] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
                if int(rest.split()[2]) == self.popen.pid and name.startswith("VLLM::"):
                    found[name.removeprefix("VLLM::")] = int(stat.parent.name)
        return found

    def core(self) -> int:
        """Whose freeze or death the API process must tell: EngineCore; its name is cut to 15 letters."""
        return next(pid for name, pid in self.children().items() if name.startswith("EngineCor"))

    def rss_mib(self) -> dict[str, int]:
        """Resident memory of each of its processes."""
        pages = {
            name: int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            for name, pid in {"APIServer": self.popen.pid, **self.children()}.items()
        }
        return {name: count * os.sysconf("SC_PAGE_SIZE") >> 20 for name, count in pages.items()}

    def send_all(self, number: signal.Signals) -> None:
        os.killpg(self.popen.pid, number)

    def end(self) -> None:
        """Kill the group, and reap what is ours."""
        with suppress(ProcessLookupError):
            self.send_all(signal.SIGKILL)
        self.popen.wait()
