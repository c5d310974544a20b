"""Real processes that run, answer, and are ill all the same; and what the site's gRPC health says of them."""

import json
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from full_disk import SmallDisk
from grpc_health.v1 import health_pb2, health_pb2_grpc
from site_up import alive, wait_for

from holdfast.domain.roster import Roster
from holdfast.host.ports import free_ports
from holdfast.sim.levers import Pull, pull_lever
from holdfast.store import snapshot

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def levers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where replicas open their levers; the path of a socket must be short."""
    folder = Path(tempfile.mkdtemp(prefix="hf"))
    monkeypatch.setenv("HOLDFAST_LEVERS", str(folder))
    yield folder
    shutil.rmtree(folder)


def test_a_replica_that_answers_wrongly_is_condemned_and_the_evidence_kept(site, levers):
    one = site(canary={"every_s": 1.0})
    one.wait_ready()
    one.wait("the known answer", lambda: list((one.state / "answers").glob("*.json")))
    pull_lever(levers / "replica-0", Pull("wrong"))
    ailing = one.wait_event("replica_ailing", replica="replica-0")
    assert ailing["kind"] == "wrong"
    assert ailing["why"].startswith(
        "replica-0: 2 canaries in a row came back wrong: the canary's answer differs at token 0: "
    )
    exhibits = [json.loads(path.read_text()) for path in sorted((one.state / "evidence").glob("*.json"))]
    assert len(exhibits) == 2
    (known,) = (json.loads(path.read_text()) for path in (one.state / "answers").glob("*.json"))
    for exhibit in exhibits:
        assert (exhibit["replica"], exhibit["kind"]) == ("replica-0", "wrong")
        assert exhibit["expected"] == known["ids"]
        assert len(exhibit["got"]) == 16
        assert exhibit["got"] != exhibit["expected"]
    one.wait_event("process_quarantined", name="replica-0")
    one.wait("replica-0 off the roster", lambda: [place["replica"] for place in one.roster()] == ["replica-1"])
    assert one.find_event("replica_ailing", replica="replica-1") is None


def test_a_replica_that_answers_pings_and_makes_no_step_is_replaced(site, levers):
    one = site(canary={"idle_s": 0.5, "idle_every_s": 0.5}, ailing={"wedged_s": 1.0}, probe={"every_s": 0.1})
    one.wait_ready()
    one.wait("the known answer", lambda: list((one.state / "answers").glob("*.json")))
    pid = one.pid("replica-0")
    pull_lever(levers / "replica-0", Pull("lie"))
    ailing = one.wait_event("replica_ailing", replica="replica-0")
    assert ailing["kind"] == "wedged"
    assert ailing["why"].startswith("replica-0: it answers pings, but ")
    one.wait("another replica-0", lambda: one.pid("replica-0") not in (0, pid) and len(one.roster()) == 2)


class Health:
    """What gRPC health says of a site."""

    def __init__(self, port: int) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.stub = health_pb2_grpc.HealthStub(self.channel)

    def of(self, service: str) -> int | None:
        """None while it is not there, or does not know the service."""
        try:
            return int(self.stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status)
        except grpc.RpcError:
            return None


@pytest.fixture
def health_port() -> int:
    return free_ports(1)[0]


def test_health_follows_the_site_with_and_without_a_supervisor(site, health_port):
    one = site(control={"health_port": health_port}, probe={"every_s": 0.2, "silent_s": 2.0})
    one.wait_ready()
    health = Health(health_port)
    one.wait("health", lambda: health.of("replica-1") == SERVING)
    assert [health.of(name) for name in ("", "pearl", "replica-0", "nobody")] == [SERVING, SERVING, SERVING, None]
    one.kill("replica-0", signal.SIGSTOP)
    one.wait("its suspicion", lambda: health.of("replica-0") == NOT_SERVING)
    assert health.of("pearl") == SERVING
    one.wait("another replica-0", lambda: health.of("replica-0") == SERVING)
    one.process.kill()
    one.process.wait()
    assert [health.of(name) for name in ("", "pearl", "replica-0")] == [SERVING, SERVING, SERVING]
    one.kill("replica-1")
    wait_for("its end", lambda: health.of("replica-1") == NOT_SERVING)
    assert health.of("") == SERVING
    one.kill("replica-0")
    wait_for("the end of the model", lambda: health.of("pearl") == NOT_SERVING)
    health.channel.close()


def test_a_taken_health_port_takes_nothing_else_down(site, health_port):
    holder = grpc.server(None, options=(("grpc.so_reuseport", 0),))
    holder.add_insecure_port(f"127.0.0.1:{health_port}")
    holder.start()
    one = site(control={"health_port": health_port})
    one.wait_event("process_ready", name="control")
    told = httpx.get(f"{one.control_url}/health", trust_env=False).json()
    assert told["ok"] is True
    assert told["grpc"].startswith(f"off: can't serve health checks at 127.0.0.1:{health_port}")
    holder.stop(0).wait()


def test_a_watcher_is_told_when_a_replica_dies(site, health_port):
    one = site(control={"health_port": health_port})
    one.wait_ready()
    health = Health(health_port)
    one.wait("health", lambda: health.of("replica-0") == SERVING)
    watch = health.stub.Watch(health_pb2.HealthCheckRequest(service="replica-0"))
    assert next(watch).status == SERVING
    one.kill("replica-0")
    assert next(watch).status == NOT_SERVING
    watch.cancel()
    health.channel.close()


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    try:
        one = SmallDisk(4096)
    except (PermissionError, FileNotFoundError):
        pytest.skip("needs the right to mount a tmpfs")
    yield one
    one.close()


def test_a_full_disk_stops_neither_serving_nor_mending(site, disk):
    one = site(site={"name": "tested", "state_dir": str(disk.folder / "state")})
    one.state = disk.folder / "state"
    one.wait_ready()
    disk.fill()
    pid = one.kill("replica-0")
    boots = {place["replica"]: place["boot"] for place in one.roster()}

    def mended() -> bool:
        roster = snapshot.take(one.state / "roster.json", Roster)
        here = {place.replica: place.boot for place in roster.places} if roster else {}
        return len(here) == 2 and here["replica-0"] != boots["replica-0"] and here["replica-1"] == boots["replica-1"]

    one.wait("replica-0 back", mended)
    assert not alive(pid)
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4, "model": "pearl"}
    for _ in range(4):
        assert httpx.post(f"{one.url}/chat/completions", json=body, timeout=60, trust_env=False).status_code == 200
    disk.empty()
    one.wait_ready()
    assert one.stop() == 0


def test_readiness_counts_only_who_may_serve(site):
    one = site(replica={"engine": "scripted", "count": 2, "slots": 16}, probe={"silent_s": 60.0})
    one.wait_ready()
    address = one.url.removesuffix("/v1") + "/health/ready"

    def says() -> str:
        return str(httpx.get(address, trust_env=False).json()["why"])

    one.wait("both", lambda: says() == "32 slots")
    one.kill("replica-0", signal.SIGSTOP)
    one.wait("the suspicion", lambda: says() == "16 slots")
    one.kill("replica-0", signal.SIGCONT)
    one.wait("the all-clear", lambda: says() == "32 slots")
