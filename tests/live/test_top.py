"""What an engineer on call sees of a real site with two workers: the load, who is refused and why, whoever is gone."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from site_up import Site

TENANTS = """
[tenants.acme]
keys = ["key-acme"]
requests_per_s = 0.001
burst = 2
[tenants.default]
weight = 3
"""


def ask(site: Site, key: str, tokens: int) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": tokens, "model": "pearl"}
    head = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.post(f"{site.url}/chat/completions", json=body, headers=head, timeout=60, trust_env=False)


def told(site: Site) -> dict[str, object]:
    return json.loads(site.run("top", "--json", str(site.file)).stdout)


@pytest.fixture
def crowded(tmp_path):
    one = Site(
        tmp_path,
        gateway={"workers": 2, "drain_s": 5.0},
        replica={"count": 2, "slots": 2, "token_ms": 50.0, "drain_s": 1.0},
    )
    one.file.write_text(one.file.read_text() + TENANTS)
    with one:
        one.wait_ready()
        one.wait_event("process_ready", name="control")
        one.wait("two workers that tell", lambda: len(told(one)["workers"]) == 2)
        yield one


def test_top_shows_who_runs_who_waits_and_who_is_refused(crowded):
    with ThreadPoolExecutor(12) as clients:
        acme = [ask(crowded, "key-acme", 1).status_code for _ in range(4)]
        assert sorted(acme) == [200, 200, 429, 429]
        running = [clients.submit(ask, crowded, "", 60) for _ in range(5)]
        load = crowded.wait("four that run", lambda: (found := told(crowded))["running"] >= 4 and found)
        assert (load["site"], load["slots"], load["wanted"]) == ("tested", 4, 2)
        assert load["refused"] == {"tenant_rate": 2}
        assert {one["tenant"]: one["refused"] for one in load["tenants"]}["acme"] == {"tenant_rate": 2}
        assert [(one["replica"], one["state"], one["slots"]) for one in load["replicas"]] == [
            ("replica-0", "serving", 2),
            ("replica-1", "serving", 2),
        ]
        assert all(one["running"] <= 2 for one in load["replicas"])
        assert [one["worker"] for one in load["workers"]] == ["gateway-0", "gateway-1"]
        assert "2 on this machine" in load["sharing"]
        screen = crowded.run("top", "--once", str(crowded.file))
        assert screen.returncode == 0, screen.stderr
        assert "tenant_rate" in screen.stdout
        assert "replica-1  serving  scripted" in screen.stdout
        assert {one.result().status_code for one in running} <= {200, 503}


def test_top_goes_on_without_the_control_plane_and_says_when_nothing_is_there(crowded):
    page = httpx.get(f"{crowded.control_url}/v1/load", timeout=10, trust_env=False)
    assert page.status_code == 200
    assert page.json()["verdict"]["word"] == "ok"
    crowded.stop()
    gone = crowded.run("top", "--once", str(crowded.file))
    assert gone.returncode == 1
    assert " DOWN  tested" in gone.stdout
    assert "no gateway worker tells anything" in gone.stdout
    assert "since the control plane does not answer" in " ".join(gone.stdout.split())
    assert json.loads(crowded.run("top", "--json", str(crowded.file)).stdout)["workers"] == []


def test_top_and_limits_say_what_they_want(tmp_path):
    site = Site(tmp_path)
    site.file.write_text(site.file.read_text() + TENANTS)
    asked = site.run("top", str(site.file))
    assert (asked.returncode, asked.stdout) == (2, "")
    assert "this is no terminal: say --once for one look" in asked.stderr
    assert site.run("top", "--once", "--every", "0", str(site.file)).returncode == 2
    page = json.loads(site.run("limits", "--json", str(site.file)).stdout)
    assert [one["tenant"] for one in page["tenants"]] == ["default", "acme"]
    shown = site.run("limits", "--tenant", "acme", str(site.file))
    assert "acme: refused from rung 5 on, reserved only" in shown.stdout
    wrong = site.run("limits", "--tenant", "acmee", str(site.file))
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "there is no tenant 'acmee'" in wrong.stderr


def test_the_live_view_draws_and_leaves_at_ctrl_c(crowded):
    argv = [sys.executable, "-m", "holdfast", "top", "--every", "0.2", str(crowded.file)]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs us in the background may have it ignored
    master, slave = pty.openpty()
    with subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave) as child:
        os.close(slave)
        seen = b""
        while seen.count(b"replicas serve") < 3:
            piece = os.read(master, 65536)
            assert piece, seen
            seen += piece
        child.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # that is how a terminal ends whose last writer has gone
            while os.read(master, 65536):
                pass
        assert child.wait(20) == 0
    os.close(master)
