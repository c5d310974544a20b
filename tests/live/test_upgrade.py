"""Workers come and go, the supervisor too, and no client finds the door shut."""

import json
import signal
import socket

import pytest
from site_up import Site, alive, wait_for
from streaming import Drizzle, Streams, peaceful

QUICK = {"worker_silent_s": 1.0}
TOKENS = 100


def upgrade(one: Site, *words: str):
    return one.run("upgrade", *words, str(one.file))


def wishes(one: Site) -> dict[str, object]:
    return json.loads((one.state / "wishes.json").read_text())


def others(one: Site) -> dict[str, int]:
    return {name: pid for name, pid in one.pids().items() if not name.startswith("replica")}


def test_an_upgrade_under_load_is_noticed_by_nobody(site):
    one = site(gateway={"workers": 2, "drain_s": 10.0}, replica={"token_ms": 10.0})
    one.wait_ready()
    one.wait_event("process_ready", name="control")
    calm = peaceful(one, 4, TOKENS)
    before, supervisor = one.pids(), one.process.pid
    with Drizzle(one) as drizzle:
        streams = Streams(one, 4, TOKENS).start()
        told = upgrade(one)
        assert told.returncode == 0, told.stderr
        drizzle.more(10)
    assert set(drizzle.ended) == {"whole"}, drizzle.ended
    assert [(stream.text, stream.end) for stream in streams.join()] == [(text, "length") for text in calm]
    after = one.pids()
    assert sorted(after) == ["control", "gateway-0.1", "gateway-1.1", "replica-0", "replica-1"]
    assert not set(after.values()) & {pid for name, pid in before.items() if not name.startswith("replica")}
    assert {name: after[name] for name in ("replica-0", "replica-1")} == {
        name: before[name] for name in ("replica-0", "replica-1")
    }
    assert one.process.poll() is None
    assert one.view()["supervisor_pid"] == supervisor
    assert one.find_event("upgrade_ended", epoch=1) is not None
    assert one.stop() == 0


def test_an_upgrade_of_all_replaces_replicas_too(site):
    one = site(replica={"token_ms": 5.0})
    one.wait_ready()
    before = one.pids()
    with Drizzle(one) as drizzle:
        told = upgrade(one, "--all")
        assert told.returncode == 0, told.stderr
        drizzle.more(5)
    assert set(drizzle.ended) == {"whole"}, drizzle.ended
    assert not set(one.pids().values()) & set(before.values())
    assert len(one.roster()) == 2


def test_settings_are_read_afresh_and_bad_ones_change_nothing(site):
    one = site()
    one.wait_ready()
    before = one.pids()
    good = one.file.read_text()
    one.file.write_text(good + "[poison]\nkept_s = 3\n")
    told = upgrade(one)
    assert (told.returncode, one.pids()) == (2, before)
    assert "unknown key 'kept_s'" in told.stderr
    one.file.write_text(good.replace("[gateway]\n", "[gateway]\nworkers = 2\n"))
    assert upgrade(one).returncode == 0
    assert sorted(others(one)) == ["control", "gateway-0.1", "gateway-1.1"]


def test_a_supervisor_that_is_killed_in_an_upgrade_is_followed_by_one_that_finishes_it(site):
    one = site(gateway={"workers": 2})
    one.wait_ready()
    before = others(one)
    with Drizzle(one) as drizzle:
        assert upgrade(one, "--no-wait").returncode == 0
        one.wait("a new worker", lambda: one.pid("gateway-0.1"))
        one.process.kill()
        one.process.wait()
        drizzle.more(5)
        one.up()
        one.wait("the upgrade's end", lambda: wishes(one).get("finished_epoch") == 1)
        drizzle.more(5)
    assert set(drizzle.ended) == {"whole"}, drizzle.ended
    assert not set(others(one).values()) & set(before.values())


def test_without_a_supervisor_there_is_nothing_to_upgrade(site):
    one = site()
    one.wait_ready()
    one.process.kill()
    one.process.wait()
    told = upgrade(one)
    assert told.returncode == 1
    assert "nobody supervises this site. Start it: holdfast up" in told.stderr


@pytest.mark.parametrize("widowed", [False, True], ids=["same supervisor", "after another supervisor took over"])
def test_the_only_worker_is_killed_and_no_connection_is_refused(site, widowed):
    one = site(restart={"free": 9})
    one.wait_ready()
    if widowed:  # the new supervisor has the socket from the worker itself
        one.process.kill()
        one.process.wait()
        one.up()
        one.wait_event("process_adopted", name="gateway-0")
        one.wait("the worker in service", lambda: one.view().get("supervisor_pid") == one.process.pid)
    with Drizzle(one, clients=6) as drizzle:
        pid = one.kill("gateway-0")
        one.wait("a new worker", lambda: one.pid("gateway-0") not in (0, pid))
        drizzle.more(20)
    assert set(drizzle.ended) <= {"whole", "lost"}, drizzle.ended
    assert drizzle.ended.get("lost", 0) <= 6, "more were lost than the dead worker had accepted"


def test_a_frozen_worker_is_replaced_while_the_other_serves(site):
    one = site(gateway={"workers": 2}, probe=QUICK, restart={"free": 9})
    one.wait_ready()
    one.wait("both workers", lambda: one.find_event("process_ready", name="gateway-1"))
    pid = one.kill("gateway-0", signal.SIGSTOP)
    with Drizzle(one, clients=2) as drizzle:
        wait_for("its end", lambda: not alive(pid), tell=one._told)
        one.wait("a new worker", lambda: one.pid("gateway-0") not in (0, pid))
        drizzle.more(10)
    assert set(drizzle.ended) == {"whole"}, drizzle.ended
    killed = [event["why"] for event in one.events() if event.get("step") == "kill"]
    assert killed[0].startswith(f"kill gateway-0 (pid {pid}): it gave no sign of life for ")
    assert one.find_event("process_died", name="gateway-1") is None


def test_an_only_worker_that_freezes_under_no_supervisor_is_mended_by_the_next(site):
    one = site(probe=QUICK, restart={"free": 9})
    one.wait_ready()
    one.process.kill()
    one.process.wait()
    pid = one.kill("gateway-0", signal.SIGSTOP)
    one.up()
    one.wait("a new worker", lambda: one.pid("gateway-0") not in (0, pid))
    with Drizzle(one) as drizzle:
        drizzle.more(5)
    assert set(drizzle.ended) == {"whole"}, drizzle.ended


def test_a_site_that_stops_refuses_new_clients_at_once_and_lets_the_others_end(site):
    one = site(replica={"token_ms": 20.0, "drain_s": 10.0}, gateway={"drain_s": 10.0})
    one.wait_ready()
    calm = peaceful(one, 2, TOKENS)
    streams = Streams(one, 2, TOKENS).start()
    one.process.send_signal(signal.SIGINT)
    port = int(one.tree["gateway"]["port"])
    one.wait("the closed door", lambda: _refused(port))
    assert not any(stream.end for stream in streams.answers), "the door was closed after the streams had ended"
    assert [(stream.text, stream.end) for stream in streams.join()] == [(text, "length") for text in calm]
    assert one.process.wait(30) == 0


def _refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False
