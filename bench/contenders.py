"""The gateways that are measured under too much load, each over three engines of the same fixed capacity.

Ours runs as any operator would start it: `holdfast up`, three scripted replicas. The others stand before three engines of
bench/fixed_engine.py. HAProxy and sglang-router each come twice: as they are, and told the engines' exact capacity (which an
operator would have to know, and to change with every replica that dies).
"""

import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rigs import PEERS, Missing, free_port, process, wait_for_http

from holdfast.drill.arena import Arena, Plan
from holdfast.host.clock import MonotonicClock

HERE = Path(__file__).parent
CORES = (0, 1)
HAPROXY = Path("/usr/sbin/haproxy")
QUEUE_S = 1  # how long those that were told the capacity let a request wait
PEER_NAMES = ("sglang-router", "sglang-router-limit", "haproxy", "haproxy-limit")


@dataclass
class Capacity:
    """What the engines can do."""

    replicas: int = 3
    slots: int = 8
    token_ms: float = 15.0
    tokens: int = 25  # of each answer

    @property
    def per_s(self) -> float:
        """Answers a second, all engines together, if nothing else cost time."""
        return self.replicas * self.slots / (self.tokens * self.token_ms / 1000)


@dataclass
class Rig:
    """Something to send to."""

    name: str
    port: int
    pids: list[int]  # of the gateway alone
    arena: Arena | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


@contextlib.asynccontextmanager
async def ours(capacity: Capacity, more: dict[str, dict[str, Any]] | None = None) -> AsyncIterator[Rig]:
    """A whole site of scripted replicas."""
    sections: dict[str, dict[str, Any]] = {
        "replica": {"slots": capacity.slots, "token_ms": capacity.token_ms},
    }
    for name, keys in (more or {}).items():
        sections.setdefault(name, {}).update(keys)
    plan = Plan(replicas=capacity.replicas, engine="scripted", more=sections)
    async with Arena(plan, MonotonicClock()) as arena:
        site = arena.site()
        pids = [one.pid for one in site.processes if one.role.value == "gateway"] if site is not None else []
        yield Rig("holdfast", arena.port, pids, arena)


@contextlib.contextmanager
def engines(capacity: Capacity) -> Iterator[list[int]]:
    """The engines of the others. Yields their ports."""
    ports = [free_port() for _ in range(capacity.replicas)]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "engines.log"
        argv = [sys.executable, str(HERE / "fixed_engine.py"), "--ports", ",".join(map(str, ports))]
        argv += ["--slots", str(capacity.slots), "--token-ms", str(capacity.token_ms)]
        with process(argv, CORES, log) as child:
            for port in ports:
                wait_for_http(port, "/v1/models", child, log)
            yield ports


@contextlib.contextmanager
def haproxy(capacity: Capacity, told: bool) -> Iterator[Rig]:
    """HAProxy over the engines. Raises Missing."""
    if not HAPROXY.exists():
        raise Missing(f"{HAPROXY} is not installed")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, engines(capacity) as ports:
        limit = f"maxconn {capacity.slots}" if told else ""
        servers = "\n".join(f"  server s{number} 127.0.0.1:{one} {limit}" for number, one in enumerate(ports))
        config = Path(folder) / "haproxy.cfg"
        config.write_text(
            "global\n  maxconn 9000\n  nbthread 1\ndefaults\n  mode http\n  option abortonclose\n  timeout connect 2s\n"
            f"  timeout client 60s\n  timeout server 60s\n  timeout queue {QUEUE_S if told else 60}s\n"
            f"frontend f\n  bind 127.0.0.1:{port}\n  default_backend b\n"
            f"backend b\n  balance {'leastconn' if told else 'roundrobin'}\n{servers}\n"
        )
        log = Path(folder) / "haproxy.log"
        with process([str(HAPROXY), "-db", "-f", str(config)], CORES, log) as child:
            wait_for_http(port, "/v1/models", child, log)
            yield Rig("haproxy-limit" if told else "haproxy", port, [child.pid])


@contextlib.contextmanager
def sglang(capacity: Capacity, told: bool) -> Iterator[Rig]:
    """sglang-router over the engines. Raises Missing."""
    python = PEERS / "bin" / "python"
    if not python.exists():
        raise Missing(f"{python} is not there: bench/gateway.py installs it")
    port, metrics = free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder, engines(capacity) as ports:
        log = Path(folder) / "router.log"
        argv = [str(python), "-m", "sglang_router.launch_router", "--host", "127.0.0.1", "--port", str(port)]
        argv += ["--worker-urls", *(f"http://127.0.0.1:{one}" for one in ports), "--policy", "round_robin"]
        argv += ["--log-level", "warn", "--prometheus-port", str(metrics)]
        if told:
            argv += ["--max-concurrent-requests", str(capacity.replicas * capacity.slots)]
            argv += ["--queue-size", str(round(capacity.per_s * QUEUE_S)), "--queue-timeout-secs", str(QUEUE_S)]
        with process(argv, CORES, log) as child:
            wait_for_http(port, "/v1/models", child, log)
            yield Rig("sglang-router-limit" if told else "sglang-router", port, [child.pid])


@contextlib.asynccontextmanager
async def contender(name: str, capacity: Capacity) -> AsyncIterator[Rig]:
    """Any of them by name. Raises Missing."""
    if name == "holdfast":
        async with ours(capacity) as rig:
            yield rig
    else:
        make = haproxy if name.startswith("haproxy") else sglang
        with make(capacity, name.endswith("-limit")) as rig:
            yield rig
