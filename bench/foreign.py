"""Parts of bench/failover.py for foreign engines: whom it hurts there, and what the engine's own health says meanwhile."""

import asyncio
import shutil
from pathlib import Path

import httpx
from msgspec import Struct

from holdfast.domain.ports import Clock
from holdfast.drill.arena import Arena, Sections
from holdfast.drill.engine_parts import Part, argument, pid_of
from holdfast.host import sessions
from holdfast.pearl.gguf import write_gguf
from holdfast.policy.havoc import Blow

SHIPPED = Path(__file__).resolve().parent.parent / "src/holdfast/shipped/pearl"
ENGINES = ("vllm", "triton", "llamacpp")
LOOK_S = 0.1
ASK_S = 1.0
HEALTH = {
    "vllm": ("--port", "/health"),
    "triton": ("--http-port", "/v2/health/ready"),
    "llamacpp": ("--port", "/health"),
}
# Whom each engine's run hurts: llama.cpp is one process
BLOWS: dict[str, tuple[tuple[Blow, Part], ...]] = {
    engine: tuple((blow, part) for part in parts for blow in (Blow.KILL, Blow.FREEZE))
    for engine, parts in {
        "vllm": (Part.ENGINE, Part.CORE),
        "triton": (Part.ENGINE, Part.CORE),
        "llamacpp": (Part.ENGINE,),
    }.items()
}


class Told(Struct, kw_only=True):
    """What the engine's own health said, from the blow until the site took the replica out or the load had ended: how often
    200, how often something else, how often nothing. `first_bad_s`: after how long it first said anything but 200; -1: never.
    """

    ok: int = 0
    bad: int = 0
    silent: int = 0
    first_bad_s: float = -1.0


def sections(program: Path, slots: int) -> Sections:
    """Settings of a site on this engine, with the model that ships."""
    return {
        "replica": {"slots": slots, "queue_max": 4 * slots, "context_tokens_max": 512, "drain_s": 5.0},
        "engine": {"program": str(program), "start_s": 300.0},
        "restart": {"free": 100_000, "deaths_max": 100_000, "start_s": 300.0},
    }


def llamacpp_model(room: Path) -> Sections:
    """llama.cpp opens GGUF only: the model that ships as one, beside its tokenizer, in this folder."""
    folder = room / "pearl"
    shutil.copytree(SHIPPED, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    write_gguf(SHIPPED, folder / "pearl.gguf")
    return {"model": {"path": str(folder), "name": "pearl"}}


def program_of(engine: str) -> Path:
    """The interpreter of the engine's own environment beside ours."""
    return Path(__file__).resolve().parent.parent / f".venv-{engine}" / "bin" / "python"


def health_url(arena: Arena, engine: str, replica: str) -> str:
    """Where this replica's engine tells of its health; empty when that can't be told."""
    word, path = HEALTH[engine]
    port = argument(arena.folder.run(replica), word)
    return f"http://127.0.0.1:{port}{path}" if port else ""


def whole(arena: Arena, engine: str) -> bool:
    """Whether every part of every replica's engine is there, and runs."""
    for place in arena.roster().places:
        for part in {part for _, part in BLOWS.get(engine, ())}:
            one = sessions.seen(pid_of(arena.folder.run(place.replica), part))
            if one is None or not one.alive or one.state in "Tt":
                return False
    return True


async def listen(url: str, clock: Clock, told: Told, until: asyncio.Event) -> None:
    """Ask an engine for its health ten times a second."""
    began = clock.now()
    async with httpx.AsyncClient(timeout=ASK_S, trust_env=False) as client:
        while url and not until.is_set():
            try:
                good = (await client.get(url)).status_code == 200
                told.ok, told.bad = told.ok + good, told.bad + (not good)
            except httpx.HTTPError:
                good, told.silent = False, told.silent + 1
            if not good and told.first_bad_s < 0:
                told.first_bad_s = round(clock.now() - began, 3)
            await clock.sleep(LOOK_S)
