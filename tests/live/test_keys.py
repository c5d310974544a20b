"""Keys on a real site of two workers: revocation reaches both, survives a restart, and nothing opens without one."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from site_up import Site

from holdfast.domain.key import spell_key

REACH_S = 5.0
MADE: list[str] = []
QUESTION: dict[str, Any] = {"model": "pearl", "max_tokens": 4, "messages": [{"role": "user", "content": "Hello"}]}


def key(site: Site, *words: str) -> str:
    done = site.run("key", *words, "--settings", str(site.file))
    assert done.returncode == 0, done.stderr
    secret = done.stdout.strip()
    MADE.extend([secret] if secret.startswith("hfst_") else [])
    return secret


def ask(site: Site, secret: str, path: str = "/chat/completions") -> httpx.Response:
    """On a connection of its own, so that either worker may get it."""
    headers = {"authorization": f"Bearer {secret}"} if secret else {}
    with httpx.Client(trust_env=False, headers=headers, timeout=30) as client:
        return client.post(site.url + path, json=QUESTION)


def metrics(url: str, secret: str = "") -> httpx.Response:
    headers = {"authorization": f"Bearer {secret}"} if secret else {}
    return httpx.get(f"{url}/metrics", headers=headers, trust_env=False)


def everywhere(site: Site, secret: str, status: int, times: int = 40) -> bool:
    """Whether each of many connections is answered so; with two workers one of them would show by then."""
    return all(ask(site, secret).status_code == status for _ in range(times))


def reach_s(site: Site, secret: str, status: int) -> float:
    began = time.monotonic()
    site.wait(f"{status} everywhere", lambda: ask(site, secret).status_code == status, REACH_S)
    site.wait(f"{status} everywhere", lambda: everywhere(site, secret, status), REACH_S)
    return time.monotonic() - began


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    gateway = {"workers": 2, "access_log": True}
    with Site(tmp_path_factory.mktemp("keys"), gateway=gateway, replica={"count": 1}) as one:
        one.wait_ready()
        one.wait("both workers", lambda: sum(r["role"] == "gateway" for r in one.view()["processes"]) == 2)
        yield one


def test_the_life_of_a_key(site: Site) -> None:
    assert "only this machine is served without a key" in site.output.read_text()
    assert ask(site, "").status_code == 200

    first = key(site, "create", "alice", "--tenant", "acme")
    assert reach_s(site, first, 200) < REACH_S
    assert reach_s(site, "", 401) < REACH_S
    assert ask(site, first[:-1] + "x").json()["error"]["message"].startswith("the API key is mistyped")
    assert ask(site, spell_key(1, 1)).json()["error"]["message"].startswith("the API key is not known here")

    second = key(site, "rotate", "alice", "--grace", "1h")
    assert reach_s(site, second, 200) < REACH_S
    assert ask(site, first).status_code == 200

    old = (site.state / "keys.json").read_bytes()
    key(site, "revoke", first[5:15])
    assert reach_s(site, first, 401) < REACH_S
    assert everywhere(site, second, 200)

    for name in ("keys.json", "keys.json.last"):  # somebody brings an old copy back, and all workers start anew
        (site.state / name).write_bytes(old)
    site.kill("gateway-0")
    site.kill("gateway-1")
    site.wait_event("keys_changed", live=1)
    site.wait("a worker again", lambda: _answers(site, second))
    assert everywhere(site, first, 401)

    (site.state / "keys.json").write_bytes(b"{")
    (site.state / "keys.json.last").unlink()
    stale = site.wait_event("keys_stale")
    assert "go on to hold" in stale["why"]
    assert ask(site, second).status_code == 200
    assert ask(site, "").status_code == 401


def _answers(site: Site, secret: str) -> bool:
    try:
        return ask(site, secret).status_code == 200
    except httpx.TransportError:
        return False


def test_the_log_of_all_that_is_whole(site: Site) -> None:
    done = site.run("audit", "verify", "--settings", str(site.file))
    assert (done.returncode, done.stderr) == (0, "")
    acts = [json.loads(line)["act"] for line in (site.state / "audit.jsonl").read_text().splitlines()]
    assert acts[:4] == ["up", "key_create", "key_rotate", "key_revoke"]


def test_no_key_is_written_anywhere(site: Site) -> None:
    """The access log tells of requests by a key's id."""
    lines = [json.loads(line) for path in (site.state / "log").glob("*.access.jsonl") for line in path.open()]
    mine = [line for line in lines if line["tenant"] == "acme"]
    assert mine
    assert {line["path"] for line in mine} == {"/v1/chat/completions"}
    assert all(line["tokens_in"] and line["tokens_out"] == 4 for line in mine if line["status"] == 200)
    assert all(line["status"] in (200, 401) and line["seconds"] >= 0 for line in mine)
    ids = {secret[5:15] for secret in MADE}
    assert {line["key"] for line in mine} == ids
    for path in site.state.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert [secret for secret in MADE if secret[16:].encode() in data] == [], path
