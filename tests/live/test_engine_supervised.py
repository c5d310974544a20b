"""What supervision shows of foreign engines, and what it ends that dead replicas have left of them."""

import json
import signal

import pytest
from engine_programs import Keeper, all_gone
from site_up import Site, alive

from holdfast.cli.start_faults import AGAIN, start_fault
from holdfast.domain.replica import ReplicaState, StartFault
from holdfast.domain.site import ProcessView, Role, SiteView
from holdfast.host.engine_process import EngineNotStarted
from holdfast.store import snapshot

VLLM = "vllm 0.32.0: ids in, ids out, seed; no priority"


@pytest.mark.parametrize("code", [*StartFault, None], ids=str)
def test_an_engine_that_can_not_start_ends_its_replica_with_the_code_that_its_log_told_and_one_line(code):
    found = start_fault(EngineNotStarted(code, "the GPU\nis too small"))
    assert (found.code, found.why) == (AGAIN if code is None else code, "the GPU is too small")
    assert AGAIN not in list(StartFault), "the next start may succeed"


def view(name: str, state: ReplicaState, why: str = "", **more: object) -> ProcessView:
    return ProcessView(name=name, role=Role.REPLICA, state=state, why=why, **more)


def test_status_shows_the_engines_where_some_are_foreign_and_how_far_a_start_has_come(tmp_path):
    one = Site(tmp_path)
    (one.state / "run").mkdir(parents=True)
    stage = "weights loaded 12/163 shards"
    processes = (
        view("replica-0", ReplicaState.QUARANTINED, "no memory", engine=VLLM),
        view("replica-1", ReplicaState.QUARANTINED, stage, engine=VLLM, stage=stage),
        view("replica-2", ReplicaState.QUARANTINED, engine="triton 2.60: ids in"),
    )
    site = SiteView(name="tested", at=0.0, supervisor_pid=1, address="", model="m", processes=processes)
    snapshot.put(one.state / "site.json", site)
    told = one.run("status", str(one.file)).stdout
    assert f"engine of replica-0, replica-1: {VLLM}" in " ".join(told.split())
    assert "engine of replica-2: triton 2.60: ids in" in told
    rows = json.loads(one.run("status", str(one.file), "--json").stdout)["processes"]
    assert [row["engine"] for row in rows] == [VLLM, VLLM, "triton 2.60: ids in"]
    assert rows[1]["stage"] == stage
    snapshot.put(one.state / "site.json", SiteView(**{**fields(site), "processes": processes[:0]}))
    assert "engine of" not in one.run("status", str(one.file)).stdout


def fields(site: SiteView) -> dict[str, object]:
    return {name: getattr(site, name) for name in site.__struct_fields__}


def test_an_engine_that_was_left_behind_is_ended_by_whoever_stops_the_site(tmp_path):
    one = Site(tmp_path)
    run = one.state / "run"
    run.mkdir(parents=True, mode=0o700)
    with Keeper(run) as keeper:
        keeper.kill_guard()
        keeper.kill()
        assert alive(keeper.pids[0])
        assert one.run("down", str(one.file)).returncode == 0
        assert all_gone(keeper.fds, 0, close=False), "down returns when it is gone"
        assert keeper.records.read() is None


def test_an_engine_lives_as_long_as_its_replica_whatever_happens_to_the_supervisor(tmp_path, site):
    one = site(replica={"count": 2})
    one.wait_ready()
    with Keeper(one.state / "run") as keeper:
        one.process.send_signal(signal.SIGKILL)
        one.process.wait()
        one.up()
        one.wait_event("process_adopted", name="replica-0")
        one.kill("replica-1")
        one.wait_event("process_died", name="replica-1")
        assert all(alive(pid) for pid in keeper.pids)
        one.kill("replica-0")
        assert all_gone(keeper.fds, close=False)
