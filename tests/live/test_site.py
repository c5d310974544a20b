"""A whole site of real processes: it comes up, mends itself, outlives its supervisor, and leaves nothing behind."""

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from site_up import Site, alive, wait_for

from holdfast.host.ports import free_ports

SHIPPED = Path(__file__).parents[2] / "src" / "holdfast" / "shipped" / "pearl"


def ask(site: Site, max_tokens: int = 16) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": max_tokens, "model": "pearl"}
    return httpx.post(f"{site.url}/chat/completions", json=body, timeout=60, trust_env=False)


class Crowd:
    """Clients that ask one question after another until they are told to leave; every answer's status is kept."""

    def __init__(self, site: Site, clients: int = 4) -> None:
        self.site, self.statuses, self.leaving = site, [], threading.Event()
        self.threads = [threading.Thread(target=self._ask_on, daemon=True) for _ in range(clients)]

    def __enter__(self) -> "Crowd":
        for thread in self.threads:
            thread.start()
        wait_for("the first answers", lambda: len(self.statuses) >= len(self.threads), tell=self.site.output.read_text)
        return self

    def __exit__(self, *_: object) -> None:
        self.leaving.set()
        for thread in self.threads:
            thread.join(60)

    def more(self, count: int) -> None:
        """Wait for so many further answers."""
        goal = len(self.statuses) + count
        wait_for(f"{count} further answers", lambda: len(self.statuses) >= goal, tell=self.site.output.read_text)

    def _ask_on(self) -> None:
        while not self.leaving.is_set():
            try:
                answer = ask(self.site)
                finish = answer.json()["choices"][0]["finish_reason"] if answer.status_code == 200 else None
                self.statuses.append((answer.status_code, finish))
            except (httpx.HTTPError, ValueError, LookupError) as error:
                self.statuses.append((0, repr(error)))

    def failures(self) -> list[tuple[int, str | None]]:
        return [one for one in self.statuses if one != (200, "length")]


def test_a_site_comes_up_answers_and_tells_its_state(site):
    one = site()
    one.wait_ready()
    assert ask(one).status_code == 200
    one.wait("the control plane", lambda: one.find_event("process_ready", name="control"))
    told = one.run("status", "--json", str(one.file))
    assert told.returncode == 0, told.stderr
    state = json.loads(told.stdout)
    assert state["source"] == "the control plane"
    assert {row["name"]: row["state"] for row in state["processes"]} == {
        "replica-0": "serving",
        "replica-1": "serving",
        "gateway-0": "serving",
        "control": "serving",
    }
    assert {row["name"]: row["pid"] for row in state["processes"]} == one.pids()
    assert state["release"]["engine"] == "scripted"
    assert "serving" in one.run("status", str(one.file)).stdout


def test_a_killed_replica_is_replaced_and_nobody_notices(site):
    one = site()
    one.wait_ready()
    with Crowd(one) as crowd:
        before = {place["replica"]: place["boot"] for place in one.roster()}
        pid = one.kill("replica-0")
        one.wait_event("process_died", name="replica-0", pid=pid)
        one.wait("replica-0 back", lambda: one.pid("replica-0") not in (0, pid) and len(one.roster()) == 2)
        crowd.more(8)
    assert crowd.failures() == []
    after = {place["replica"]: place["boot"] for place in one.roster()}
    assert after["replica-0"] != before["replica-0"]
    assert after["replica-1"] == before["replica-1"]
    died = one.find_event("process_died", name="replica-0")
    assert died["why"] == f"replica-0 (pid {pid}) was ended by signal 9"


def test_children_survive_their_supervisor_and_are_adopted(site):
    one = site()
    one.wait_ready()
    one.wait_event("process_ready", name="control")
    with Crowd(one) as crowd:
        pids = one.pids()
        one.process.kill()
        one.process.wait()
        crowd.more(8)
        assert all(alive(pid) for pid in pids.values())
        assert json.loads(one.run("status", "--json", str(one.file)).stdout)["supervised"] is False
        one.up()
        for name, pid in pids.items():
            one.wait_event("process_adopted", name=name, pid=pid)
        one.wait("all in service again", lambda: _states(one) == {"serving"})
        crowd.more(8)
    assert crowd.failures() == []
    assert one.pids() == pids
    assert one.stop() == 0
    wait_for("everything gone", lambda: not any(alive(pid) for pid in pids.values()))


def _states(site: Site) -> set[str]:
    view = site.view()
    return {row["state"] for row in view["processes"]} if view["supervisor_pid"] == site.process.pid else set()


def test_a_replica_that_died_unsupervised_is_replaced_by_the_next_supervisor(site):
    one = site()
    one.wait_ready()
    one.process.kill()
    one.process.wait()
    pid = one.kill("replica-1")
    wait_for("its end", lambda: not alive(pid))
    assert ask(one).status_code == 200
    one.up()
    one.wait("a new replica-1", lambda: one.pid("replica-1") not in (0, pid))
    one.wait_ready()


def test_a_frozen_replica_is_killed_and_replaced(site):
    one = site(probe={"every_s": 0.2, "silent_s": 2.0})
    one.wait_ready()
    pid = one.kill("replica-0", signal.SIGSTOP)
    died = one.wait_event("process_died", name="replica-0", pid=pid)
    assert died["why"] == f"replica-0 (pid {pid}) was ended by signal 9"
    assert one.find_event("replica_suspected", replica="replica-0") is not None
    one.wait("replica-0 back", lambda: one.pid("replica-0") not in (0, pid) and len(one.roster()) == 2)


def test_ctrl_c_stops_everything_in_order(site):
    one = site()
    one.wait_ready()
    one.wait_event("process_ready", name="control")
    pids = one.pids()
    assert one.stop(signal.SIGINT) == 0
    assert not any(alive(pid) for pid in pids.values())
    stopped = [event["name"] for event in one.events() if event["event"] == "process_stopped"]
    assert stopped[0] == "gateway-0"
    assert sorted(stopped[1:3]) == ["replica-0", "replica-1"]
    assert stopped[3:] == ["control"]
    assert one.roster() == []
    assert one.pids() == {}
    assert one.output.read_text().endswith("Everything has stopped.\n")


def test_a_second_ctrl_c_does_not_wait_for_answers(site):
    one = site(replica={"token_ms": 1000.0, "drain_s": 300.0}, gateway={"drain_s": 300.0})
    one.wait_ready()
    threading.Thread(target=lambda: _ask_in_vain(one), daemon=True).start()
    one.wait("the answer under way", lambda: any((row["load"] or [0, 0])[1] for row in one.view()["processes"]))
    one.process.send_signal(signal.SIGINT)
    one.wait("the first signal's effect", lambda: any(row["state"] == "draining" for row in one.view()["processes"]))
    assert one.stop(signal.SIGINT) == 0


def _ask_in_vain(site: Site) -> None:
    try:
        ask(site, max_tokens=1000)
    except httpx.HTTPError:
        return


def test_down_stops_a_site_with_a_living_supervisor(site):
    one = site()
    one.wait_ready()
    pids = one.pids()
    told = one.run("down", str(one.file))
    assert (told.returncode, told.stdout) == (0, "The site is down.\n"), told.stderr
    assert one.process.wait(10) == 0
    assert not any(alive(pid) for pid in pids.values())


def test_down_stops_a_site_whose_supervisor_is_dead(site):
    one = site()
    one.wait_ready()
    pids = one.pids()
    one.process.kill()
    one.process.wait()
    told = one.run("down", str(one.file))
    assert told.returncode == 0, told.stderr
    assert not any(alive(pid) for pid in pids.values())
    assert one.pids() == {}
    assert one.run("down", str(one.file)).stdout == "The site is down.\n"


def test_a_second_supervisor_is_refused(site):
    one = site()
    one.wait_ready()
    told = one.run("up", str(one.file))
    assert told.returncode == 2
    assert f"this site is already up: process {one.process.pid} supervises it" in told.stderr
    assert len(one.roster()) == 2


def test_a_misspelt_key_is_named_with_what_was_meant(tmp_path):
    one = Site(tmp_path, replica={"cuont": 3})
    told = one.run("up", str(one.file))
    assert told.returncode == 2
    assert told.stderr == f"holdfast up: {one.file}: unknown key 'cuont' in section [replica]. Did you mean count?\n"
    assert not one.state.exists()


@pytest.mark.parametrize("section", ["gateway", "control"])
def test_a_taken_port_is_told_before_anything_starts(tmp_path, section):
    port = free_ports(1)[0]
    with socket.create_server(("127.0.0.1", port)):
        one = Site(tmp_path, **{section: {"port": port}})
        told = one.run("up", str(one.file))
    assert told.returncode == 2
    assert f"port {port} on 127.0.0.1 is taken by another program. Choose another with [{section}] port" in told.stderr
    assert one.pids() == {}


def test_a_folder_without_a_model_is_refused(tmp_path):
    one = Site(tmp_path, model={"path": str(tmp_path)}, replica={"engine": "embedded"})
    told = one.run("up", str(one.file))
    assert told.returncode == 2
    assert f"[model] path: {tmp_path} holds no config.json and no tokenizer.json." in told.stderr


def test_a_damaged_model_ends_in_a_clear_state(tmp_path):
    folder = tmp_path / "damaged"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((SHIPPED / name).read_bytes())
    (folder / "config.json").write_text("{}")
    one = Site(tmp_path, model={"path": str(folder)}, replica={"engine": "embedded"})
    told = one.run("up", str(one.file))
    assert told.returncode == 1, told.stdout + told.stderr
    assert "can't be started: " in told.stderr
    assert "config.json" in told.stderr
    assert one.pids() == {}
    starts = [event for event in one.events() if event["event"] == "process_started" and "replica" in event["name"]]
    assert len(starts) == 2, "a start that can't succeed was repeated"


def test_the_control_plane_and_status_without_it(site):
    one = site()
    one.wait_ready()
    one.wait_event("process_ready", name="control")
    pid = one.kill("control", signal.SIGSTOP)
    told = json.loads(one.run("status", "--json", str(one.file)).stdout)
    assert told["source"] == "the state files, since the control plane does not answer"
    assert told["supervised"] is True
    assert ask(one).status_code == 200
    one.kill("control")
    one.wait_event("process_died", name="control", pid=pid)
    one.wait("a new control plane", lambda: one.pid("control") not in (0, pid))
    events = one.wait("its pages", lambda: _events(one))
    assert any(event["event"] == "process_died" and event["name"] == "control" for event in events)


def _events(site: Site) -> list[dict[str, object]]:
    try:
        return httpx.get(f"{site.control_url}/v1/events?count=50", trust_env=False).json()["events"]
    except httpx.HTTPError:
        return []


def test_chat_works_through_pipes(site):
    one = site()
    one.wait_ready()
    told = one.run("chat", "--settings", str(one.file), stdin="hello\n")
    assert told.returncode == 0, told.stderr
    assert told.stdout.strip()
    assert one.stop() == 0
    told = one.run("chat", "--settings", str(one.file), "hello")
    assert told.returncode == 1
    assert "does not answer" in told.stderr


def test_chat_on_a_terminal_is_a_conversation(site):
    one = site()
    one.wait_ready()
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "holdfast", "chat", "--settings", str(one.file)]
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs) as chat:
        os.close(theirs)
        screen = _read_until(ours, "> ")
        os.write(ours, b"hello\n")
        screen += _read_until(ours, "\r\n> ")
        os.write(ours, b"\n")
        assert chat.wait(60) == 0
    os.close(ours)
    assert "an empty line or Ctrl-D ends the conversation" in screen
    assert len(screen) > 150, "the answer is missing"


def _read_until(terminal: int, mark: str) -> str:
    """What a program prints up to a prompt (colours left out)."""
    seen = ""
    while mark not in seen:
        assert select.select([terminal], [], [], 60)[0], f"no {mark!r} in {seen!r}"
        seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", os.read(terminal, 4096).decode())
    return seen


def test_chat_sends_the_key(site):
    one = site(gateway={"key": "open-sesame"})
    one.wait_ready()
    assert ask(one).status_code == 401
    assert one.run("chat", "--settings", str(one.file), "hello").returncode == 0


@pytest.mark.skipif(not (SHIPPED / "model.safetensors").exists(), reason="the shipped model is not in this checkout")
def test_the_shipped_model_answers(site):
    one = site(replica={"engine": "embedded", "count": 1})
    one.wait_ready()
    told = one.run("chat", "--settings", str(one.file), "hello")
    assert told.returncode == 0, told.stderr
    assert told.stdout.strip()
