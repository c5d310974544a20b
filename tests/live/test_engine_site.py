"""A whole site whose engine is a program of somebody else, by its process side: starts, stages, deaths, ends."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_programs import all_gone, pidfds
from site_up import Site, alive
from vllm_program import VllmProgram

from holdfast.host import sessions

SHIPPED = Path(__file__).parents[2] / "src" / "holdfast" / "shipped" / "pearl"
pytestmark = pytest.mark.skipif(not (SHIPPED / "model.safetensors").exists(), reason="the shipped model is not here")


@pytest.fixture
def program(tmp_path: Path) -> VllmProgram:
    return VllmProgram(tmp_path / "vllm")


def sections(program: VllmProgram, **more: object) -> dict[str, dict[str, object]]:
    replica = {"engine": "vllm", "count": 1, "drain_s": 1.0, "slots": 4, "context_tokens_max": 512}
    return {
        "replica": replica,
        "model": {"path": str(SHIPPED), "name": "pearl"},
        "engine": {"program": str(program.path)},
    }


def row(one: Site) -> dict[str, object]:
    rows = json.loads(one.run("status", str(one.file), "--json").stdout)["processes"]
    return next((found for found in rows if found["name"] == "replica-0"), {})


def engine_of(one: Site) -> list[int]:
    """The pids of its engine."""
    record = json.loads((one.state / "run" / "replica-0.engine").read_text())
    return [found.pid for found in sessions.members(record["pid"], record["token"])]


def test_status_tells_how_far_a_start_has_come_and_then_what_the_engine_can_do(
    program: VllmProgram, site: Callable[..., Site]
) -> None:
    program.hold()
    one = site(**sections(program))
    told = one.wait("a stage", lambda: row(one) if "shards" in str(row(one).get("stage")) else None)
    assert (told["state"], told["stage"]) == ("starting", "weights loaded 2/4 shards")
    assert told["why"] == told["stage"]
    assert one.roster() == []
    program.let_go()
    one.wait_ready()
    now = row(one)
    assert (now["state"], now["stage"]) == ("serving", "")
    assert now["engine"].startswith("vllm 0.33.0: ids in, ids out")
    assert f"engine of replica-0: {now['engine']}" in " ".join(one.run("status", str(one.file)).stdout.split())


def test_each_replica_tells_its_own_gpus_and_is_drained_by_any_of_them(
    program: VllmProgram, site: Callable[..., Site]
) -> None:
    parts = sections(program)
    parts["replica"] |= {"count": 2, "devices": "cuda:0,cuda:1,cuda:2,cuda:3"}
    parts["engine"]["gpus"] = 2
    one = site(**parts)
    one.wait_ready(2)

    def devices() -> dict[str, object]:
        rows = json.loads(one.run("status", str(one.file), "--json").stdout)["processes"]
        return {found["name"]: found["device"] for found in rows if found["name"].startswith("replica")}

    assert devices() == {"replica-0": "cuda:0,cuda:1", "replica-1": "cuda:2,cuda:3"}
    told = one.run("drain", "cuda:1", "--settings", str(one.file))
    assert told.returncode == 0, told.stderr
    assert "replica-0 is drained and gone" in told.stdout
    assert "replica-1" not in told.stdout
    assert devices() == {"replica-0": "cuda:0,cuda:1", "replica-1": "cuda:2,cuda:3"}, "as last told"
    assert one.run("undrain", "gpu:0", "--settings", str(one.file)).returncode == 0
    one.wait("both again", lambda: len(one.roster()) == 2)


def test_a_smaller_model_beside_a_mix_is_run_by_the_engine_of_the_site(
    program: VllmProgram, tmp_path: Path, site: Callable[..., Site]
) -> None:
    small = tmp_path / "pearl-mini"
    small.symlink_to(SHIPPED, target_is_directory=True)
    parts = sections(program)
    parts["engine"]["mix"] = ["embedded"]
    one = site(**parts, smaller={"path": str(small), "count": 1})
    one.wait("both in service", lambda: len(one.roster()) == 2)
    rows = json.loads(one.run("status", str(one.file), "--json").stdout)["processes"]
    engines = {found["name"]: found["engine"].partition(" ")[0] for found in rows if found["role"] == "replica"}
    assert engines == {"replica-0": "vllm", "smaller-0": "vllm"}


def test_a_replica_that_is_killed_takes_its_engine_along_and_comes_back_with_another(
    program: VllmProgram, site: Callable[..., Site]
) -> None:
    one = site(**sections(program))
    one.wait_ready()
    before = engine_of(one)
    assert len(before) == 2
    assert program.cores()[0] in before
    fds = pidfds(*before)
    pid = one.kill("replica-0")
    assert all_gone(fds)
    one.wait("another life", lambda: one.pid("replica-0") not in (0, pid) and one.roster())
    assert not set(engine_of(one)) & set(before)
    assert not program.left()


def test_an_engine_that_is_killed_takes_its_replica_along(program: VllmProgram, site: Callable[..., Site]) -> None:
    one = site(**sections(program))
    one.wait_ready()
    record = json.loads((one.state / "run" / "replica-0.engine").read_text())
    (core,) = pidfds(program.cores()[0])
    (main,) = pidfds(record["pid"])
    signal.pidfd_send_signal(main, signal.SIGKILL)
    assert all_gone([main, core])
    one.wait_event("process_died", name="replica-0")
    one.wait("another life", lambda: len(program.cores()) == 2 and one.roster())


def test_a_start_that_can_not_succeed_is_told_from_the_engines_own_log(tmp_path: Path, program: VllmProgram) -> None:
    program.mood("memory")
    one = Site(tmp_path, **sections(program))
    told = one.run("up", str(one.file))
    assert told.returncode == 1, told.stdout + told.stderr
    assert "replica-0 can't be started: " in told.stderr
    assert "out of memory" in told.stderr
    assert sum(1 for event in one.events() if event["event"] == "process_started" and event["name"] == "replica-0") == 1
    assert "torch.OutOfMemoryError" in next((one.state / "log").glob("*engine*")).read_text()


def test_down_ends_the_engine_in_its_own_way(program: VllmProgram, site: Callable[..., Site]) -> None:
    one = site(**sections(program))
    one.wait_ready()
    fds = pidfds(*engine_of(one))
    told = one.run("down", str(one.file))
    assert told.returncode == 0, told.stderr
    assert all_gone(fds, 0)
    assert program.left()
    assert not any(alive(core) for core in program.cores())
    assert "signal" not in one.wait_event("process_stopped", name="replica-0")["why"]


def test_a_replica_that_waits_for_its_engine_to_leave_is_not_taken_for_frozen(
    program: VllmProgram, site: Callable[..., Site]
) -> None:
    told = sections(program)
    told["replica"]["count"] = 2
    one = site(**told, probe={"silent_s": 0.6, "every_s": 0.1})
    one.wait_ready()
    program.hold("exit")
    assert one.run("drain", "replica-0", "--settings", str(one.file), "--no-wait").returncode == 0
    one.wait("its word", lambda: row(one).get("stage") == "ends its engine")
    since = one.view()["at"]
    one.wait("three times as long as it may be silent", lambda: one.view()["at"] > since + 1.8)
    assert row(one)["state"] == "draining"
    program.let_go("exit")
    assert one.wait_event("process_stopped", name="replica-0")["why"].endswith("ended with code 0")


def test_down_while_it_loads_leaves_nothing(program: VllmProgram, site: Callable[..., Site]) -> None:
    program.hold()
    one = site(**sections(program))
    one.wait("a stage", lambda: "shards" in str(row(one).get("stage")))
    fds = pidfds(*engine_of(one))
    assert one.run("down", str(one.file)).returncode == 0
    assert all_gone(fds, 0)
