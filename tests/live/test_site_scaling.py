"""Scaling with real processes: replicas come with the load and leave without it, and a standby takes over. No answer breaks."""

import asyncio
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from site_up import Site, alive
from streaming import Streams, peaceful

import holdfast
from holdfast.domain.settings import Settings
from holdfast.drill.client import Client
from holdfast.drill.crowd import Crowd
from holdfast.drill.truth import Truth
from holdfast.host.clock import MonotonicClock
from holdfast.policy.reckoning import Reckoning, reckon
from holdfast.store import snapshot

SHORT, LONG = 20, 600
STREAMS = 20
SHIPPED = Path(holdfast.__file__).parent / "shipped" / "pearl"


class Load:
    """A crowd of short answers, without an end, and a few long ones on demand; the answers are known."""

    def __init__(self, site: Site) -> None:
        settings = snapshot.take(site.state / "settings.json", Settings)
        assert settings is not None
        self.truth = Truth(Path(settings.model.path), "pearl")
        clock = MonotonicClock()
        client = Client("127.0.0.1", int(site.tree["gateway"]["port"]), clock, 60.0)
        asked = [self.truth.ask(case, f"Count from {case} to 99.", SHORT) for case in range(4)]
        lasting = [self.truth.ask(case, f"Count from {case} to 999.", LONG) for case in range(10, 13)]
        self.crowd = Crowd(client, clock, lambda stream, number: asked[(stream + number) % len(asked)])
        self.long = Crowd(client, clock, lambda stream, number: lasting[stream % len(lasting)])

    def start(self, crowd: Crowd, streams: int) -> Callable[[], Reckoning]:
        """Begin; what is returned ends it, waits for the open answers, and says how they came out."""
        thread = threading.Thread(target=asyncio.run, args=(crowd.run(streams, float("inf")),), daemon=True)
        thread.start()

        def end() -> Reckoning:
            crowd.closing = True
            thread.join(60)
            assert not thread.is_alive()
            return reckon(crowd.answers, self.truth.answers, [])

        return end


def serving(site: Site) -> list[str]:
    return sorted(place["replica"] for place in site.roster() if place["weight"] > 0)


def warm(site: Site) -> list[str]:
    return [place["replica"] for place in site.roster() if place["warm"]]


def state(site: Site, name: str) -> str:
    return next((one["state"] for one in site.view().get("processes", []) if one["name"] == name), "")


def test_replicas_come_with_the_load_and_leave_by_migration_and_every_answer_is_exact(site):
    one: Site = site(
        replica={"count": 1, "slots": 8, "token_ms": 20.0, "drain_s": 20.0},
        scaling={"on": True, "min": 1, "max": 3, "out_after_s": 1.0, "in_after_s": 2.0},
        balance={"slow_start_s": 0.0, "affinity": False},
        degradation={"on": False},  # or the long answers are cut short while there are too few replicas
    )
    one.wait_ready(replicas=1)
    load = Load(one)
    calm = load.start(load.crowd, STREAMS)
    one.wait("three replicas serve", lambda: len(serving(one)) == 3)
    lasting = load.start(load.long, 3)
    one.wait("the long answers run", lambda: len(load.long.open) == 3 and load.long.tokens > 60)
    load.long.closing = True
    short = calm()
    one.wait("one replica serves", lambda: len(serving(one)) == 1)
    one.wait("the others are gone", lambda: sum(map(alive, one.pids().values())) == 3)
    assert load.long.open, "the long answers ended before the replicas did"
    long = lasting()
    assert (long.answers, long.exact) == (3, 3), long.whys
    assert load.long.moves > 0, "nobody had to move"
    assert short.exact + short.refused == short.answers, short.whys
    changes = [(event["before"], event["after"]) for event in one.events() if event["event"] == "site_scaled"]
    assert changes[-2:] == [(3, 2), (2, 1)]
    assert all(1 <= after <= 3 for _, after in changes)
    assert one.find_event("process_died") is None


def test_a_standby_takes_over_from_a_killed_replica_and_no_token_is_lost(site):
    one: Site = site(replica={"token_ms": 20.0, "drain_s": 20.0}, scaling={"warm": 1})
    one.wait_ready(replicas=3)
    one.wait("one stands by", lambda: len(warm(one)) == 1 and len(serving(one)) == 2)
    (standby,) = warm(one)
    victim = serving(one)[0]
    calm = peaceful(one, 6, 150)
    streams = Streams(one, 6, 150).start()
    one.kill(victim, signal.SIGKILL)
    one.wait("it serves", lambda: standby in serving(one), patience_s=10)
    assert one.find_event("replica_called", replica=standby) is not None
    assert [(answer.text, answer.end) for answer in streams.join()] == [(text, "length") for text in calm]
    one.wait("the killed one stands by in its turn", lambda: warm(one) == [victim])
    one.wait("and is told to", lambda: state(one, victim) == "warm")
    assert '"state": "warm"' in one.run("status", "--json", str(one.file)).stdout


def test_an_operator_scales_and_is_told_what_comes_of_it(site):
    one: Site = site(replica={"token_ms": 20.0, "drain_s": 20.0}, scaling={"warm": 1})
    one.wait_ready(replicas=3)
    calm = peaceful(one, 4, 200)
    told = one.run("scale", "3", "--settings", str(one.file))
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("3 replicas should serve\n")
    one.wait("three serve and one stands by", lambda: (len(serving(one)), len(warm(one))) == (3, 1))
    streams = Streams(one, 4, 200).start()
    told = one.run("scale", "1", "--settings", str(one.file))
    assert told.returncode == 0, told.stderr
    assert [(answer.text, answer.end) for answer in streams.join()] == [(text, "length") for text in calm]
    one.wait("one serves and one stands by", lambda: (len(serving(one)), len(warm(one))) == (1, 1))
    refused = one.run("scale", "65", "--settings", str(one.file))
    assert (refused.returncode, refused.stderr) == (1, "holdfast scale: 65 replicas: a site has 0 to 64\n")
    assert one.run("scale", "many", "--settings", str(one.file)).returncode == 2
    back = one.run("scale", "auto", "--settings", str(one.file))
    assert back.stdout == "the number of replicas is that of [replica] count\n"
    one.wait("as the settings say", lambda: (len(serving(one)), len(warm(one))) == (2, 1))


def test_replicas_of_a_smaller_model_run_beside_the_others_and_come_back_when_killed(site, tmp_path):
    small = tmp_path / "pearl-mini"
    small.symlink_to(SHIPPED, target_is_directory=True)
    one: Site = site(smaller={"path": str(small), "count": 1})
    one.wait_ready(replicas=3)
    places = {place["replica"]: place["model"] for place in one.roster()}
    assert places == {"replica-0": "", "replica-1": "", "smaller-0": "pearl-mini"}
    calm = peaceful(one, 4, 20)
    pid = one.kill("smaller-0")
    one.wait("it is back", lambda: one.pid("smaller-0") not in (0, pid) and len(one.roster()) == 3)
    assert [(answer.text, answer.end) for answer in Streams(one, 4, 20).start().join()] == [
        (text, "length") for text in calm
    ]
    assert one.view()["replicas"] == 2
