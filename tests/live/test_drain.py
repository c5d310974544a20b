"""Drain with real processes: live streams move, the process goes, and it stays gone until somebody says otherwise."""

import signal

import pytest
from site_up import Site, alive, wait_for
from streaming import Streams, peaceful

TOKENS = 150
PACED = {"token_ms": 20.0, "drain_s": 20.0}


@pytest.fixture
def paced(site) -> Site:
    one = site(replica=PACED)
    one.wait_ready()
    return one


def drain(one: Site, *words: str):
    return one.run("drain", *words, "--settings", str(one.file))


def test_a_drain_moves_live_streams_and_none_of_their_tokens_is_lost(paced):
    calm = peaceful(paced, 6, TOKENS)
    pid = paced.pid("replica-0")
    streams = Streams(paced, 6, TOKENS).start()
    told = drain(paced, "replica-0", "--why", "a new card")
    assert told.returncode == 0, told.stderr
    assert not alive(pid)
    assert not any(one.end for one in streams.answers), "the streams ended before the drain did"
    assert [(one.text, one.end) for one in streams.join()] == [(text, "length") for text in calm]
    drained = paced.find_event("replica_drained", replica="replica-0")
    assert drained is not None
    assert [place["replica"] for place in paced.roster()] == ["replica-1"]
    assert (
        "a new card; it runs again after: holdfast undrain replica-0"
        in paced.run("status", "--json", str(paced.file)).stdout
    )
    back = paced.run("undrain", "replica-0", "--settings", str(paced.file))
    assert back.returncode == 0, back.stderr
    assert paced.pid("replica-0") not in (0, pid)
    assert len(paced.roster()) == 2


def test_a_supervisor_that_is_killed_in_a_drain_is_followed_by_one_that_finishes_it(paced):
    calm = peaceful(paced, 4, TOKENS)
    pid, other = paced.pid("replica-0"), paced.pid("replica-1")
    streams = Streams(paced, 4, TOKENS).start()
    assert drain(paced, "replica-0", "--no-wait").returncode == 0
    paced.process.kill()
    paced.process.wait()
    paced.up()
    paced.wait("replica-0 gone", lambda: not alive(pid))
    assert [(one.text, one.end) for one in streams.join()] == [(text, "length") for text in calm]
    paced.wait("it stays down", lambda: _state(paced, "replica-0") == "down")
    assert paced.pid("replica-1") == other
    assert paced.find_event("process_died", name="replica-1") is None


def _state(site: Site, name: str) -> str:
    view = site.view()
    rows = view.get("processes", []) if view.get("supervisor_pid") == site.process.pid else []
    return next((row["state"] for row in rows if row["name"] == name), "")


def test_the_last_replica_is_not_drained_and_the_refusal_says_what_to_do(paced):
    assert drain(paced, "replica-0").returncode == 0
    told = drain(paced, "replica-1")
    assert told.returncode == 1
    assert "replica-1: is the last replica that serves. Bring another into service first" in told.stderr
    assert len(paced.roster()) == 1
    told = drain(paced, "nobody")
    assert told.returncode == 1
    assert "there is no replica 'nobody': name one of replica-0, replica-1, host" in told.stderr
    assert drain(paced, "host", "--force").returncode == 0
    assert paced.roster() == []


def test_a_drained_replica_stays_down_when_the_site_comes_up_again(paced):
    assert drain(paced, "replica-0").returncode == 0
    assert paced.stop(signal.SIGINT) == 0
    told = drain(paced, "replica-0")
    assert told.returncode == 1
    assert "Nobody supervises this site: it will be done by the next `holdfast up`." in told.stdout
    paced.up()
    paced.wait_ready(replicas=1)
    wait_for("the others in service", lambda: _state(paced, "replica-1") == "serving")
    assert _state(paced, "replica-0") == "down"
    assert paced.pid("replica-0") == 0
