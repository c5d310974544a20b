"""A program that behaves as vLLM's Python does for a launch: it tells its version, loads its shards, opens a scripted door.

It obeys what stands in the folder that it is written into: FIFOs hold it, `gate` while it loads and `exit` when it
leaves; a file `mood` says what goes wrong. It has a core process that outlives it if nobody ends that, as vLLM's does.
"""

import os
import sys
from pathlib import Path

SRC = Path(__file__).parents[2] / "src"
PROGRAM = """#!{python}
import sys
if sys.argv[1] == "-c":
    print("0.33.0")
    raise SystemExit(0)
sys.path[:0] = [{src!r}]
import asyncio, os, signal
from pathlib import Path
from holdfast.host.clock import MonotonicClock
from holdfast.sim.foreign_model import ForeignScript
from holdfast.sim.vllm_server import VllmServer

room = Path({room!r})
words = dict(zip(sys.argv, sys.argv[1:]))
print("(APIServer pid=1) INFO 11-29 18:46:37 [model.py:1] Resolved architecture: DeepseekV3ForCausalLM", flush=True)
sys.stderr.write("\\rLoading safetensors checkpoint shards:  50% Completed | 2/4 [00:01<00:01]\\n")
sys.stderr.flush()
def wait_at(name):
    if (room / name).exists():
        (room / name).open().read()

wait_at("gate")
mood = (room / "mood").read_text() if (room / "mood").exists() else ""
if mood == "memory":
    print("(EngineCore pid=2) ERROR 11-29 18:46:37 [core.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried", flush=True)
    print("RuntimeError: Engine core initialization failed. See root cause above.", flush=True)
    raise SystemExit(1)
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with (room / "cores").open("a") as cores:
        cores.write(f"{{os.getpid()}}\\n")
    while True:
        signal.pause()

async def serve():
    script = ForeignScript(model=words["--served-model-name"], key=os.environ["VLLM_API_KEY"])
    server = VllmServer(script, MonotonicClock())
    await server.door.open(words["--host"], int(words["--port"]))
    left = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, left.set)
    await left.wait()
    wait_at("exit")
    (room / "left").write_text("politely")

asyncio.run(serve())
"""


class VllmProgram:
    """One such program in a folder of its own."""

    def __init__(self, room: Path) -> None:
        self.room, self.path = room, room / "python"
        room.mkdir()
        self.path.write_text(PROGRAM.format(python=sys.executable, src=str(SRC), room=str(room)))
        self.path.chmod(0o700)

    def hold(self, place: str = "gate") -> None:
        """Whoever comes there waits until `let_go`: in the middle of loading, or before the exit."""
        os.mkfifo(self.room / place)

    def let_go(self, place: str = "gate") -> None:
        """Returns once somebody has waited there."""
        (self.room / place).open("w").close()
        (self.room / place).unlink()

    def mood(self, word: str) -> None:
        (self.room / "mood").write_text(word)

    def cores(self) -> list[int]:
        """The pids of all core processes that it ever had."""
        path = self.room / "cores"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def left(self) -> bool:
        """Whether one was asked to leave, and did."""
        return (self.room / "left").exists()
