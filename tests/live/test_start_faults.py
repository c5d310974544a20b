"""Starts that can't succeed end in a clear state with a sentence, not in a loop."""

import os
import shutil
import socket
from pathlib import Path

import pytest
from site_up import Site

SHIPPED = Path(__file__).parents[2] / "src" / "holdfast" / "shipped" / "pearl"
needs_model = pytest.mark.skipif(not (SHIPPED / "model.safetensors").exists(), reason="the shipped model is not here")


def starts(site: Site, name: str) -> int:
    return sum(1 for event in site.events() if event["event"] == "process_started" and event["name"] == name)


@needs_model
@pytest.mark.parametrize(
    ("replica", "words"),
    [
        ({"devices": "cuda:7"}, ("device 'cuda:7' can't be used here", "Choose others with [replica] devices")),
        (
            {"slots": 1024, "context_tokens_max": 100_000_000},
            ("out of memory while loading", "Fewer [replica] slots"),
        ),
    ],
    ids=["no such GPU", "no memory"],
)
def test_a_site_that_can_not_start_says_why_and_ends(tmp_path, replica, words):
    one = Site(tmp_path, replica={"engine": "embedded", "count": 1, **replica})
    told = one.run("up", str(one.file))
    assert told.returncode == 1, told.stdout + told.stderr
    assert all(word in told.stderr for word in words), told.stderr
    assert starts(one, "replica-0") == 1
    assert one.pids() == {}


def test_a_device_that_there_can_not_be_is_refused_before_anything_starts(tmp_path):
    one = Site(tmp_path, replica={"devices": "cuda:0,gpu1"})
    told = one.run("up", str(one.file))
    assert told.returncode == 2
    assert "[replica] devices: 'gpu1' is no device. Write cpu, or GPUs with commas between them" in told.stderr
    assert one.pids() == {}


def test_replicas_are_dealt_to_devices_in_turn(tmp_path, site):
    one = site(replica={"devices": "cpu, cpu", "count": 2})
    one.wait_ready()
    rows = [row for row in one.view()["processes"] if row["role"] == "replica"]
    assert [row["device"] for row in rows] == ["cpu", "cpu"]
    command = Path(f"/proc/{one.pid('replica-1')}/cmdline").read_bytes()
    assert b"--device=cpu" in command


@needs_model
def test_weights_that_are_damaged_while_the_site_serves_cost_one_replica_and_no_loop(tmp_path, site):
    folder = tmp_path / "model"
    shutil.copytree(SHIPPED, folder)
    one = site(model={"path": str(folder), "name": "pearl"}, replica={"engine": "embedded", "count": 2})
    one.wait_ready()
    weights = folder / "model.safetensors"
    good = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(good[: len(good) // 2])
    one.kill("replica-0")
    why = one.wait_event("process_quarantined", name="replica-0")["why"]
    assert why.startswith("replica-0 can't be started: ")
    assert "model.safetensors" in why
    assert starts(one, "replica-0") == 2
    alarm = one.wait_event("host_ailing")
    assert alarm["why"].startswith("1 of 2 replicas of this host are in quarantine (replica-0)")
    assert [place["replica"] for place in one.roster()] == ["replica-1"]
    told = one.run("undrain", "replica-0", "--settings", str(one.file))
    assert told.returncode == 1
    assert "replica-0 can't be started: " in told.stderr
    weights.write_bytes(good)
    told = one.run("undrain", "replica-0", "--settings", str(one.file))
    assert told.returncode == 0, told.stderr
    assert len(one.roster()) == 2


def test_an_address_that_somebody_else_holds_is_told_with_who_it_is(tmp_path):
    one = Site(tmp_path)
    folder = one.state / "sock"
    folder.mkdir(parents=True, mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
        stranger.bind(str(folder / "replica-0.sock"))
        stranger.listen(8)
        with one:
            why = one.wait_event("process_quarantined", name="replica-0")["why"]
            assert f"address in use by process {os.getpid()}" in why
            one.wait_ready(replicas=1)
            assert starts(one, "replica-0") == 1
            stranger.close()
            assert one.run("undrain", "replica-0", "--settings", str(one.file)).returncode == 0
            assert len(one.roster()) == 2
