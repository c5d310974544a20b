"""Erasure on a real site of two workers: one tenant's answers are gone at once, another's can still be had."""

import json
from collections.abc import Iterator

import httpx
import pytest
from site_up import Site

from holdfast.domain.settings_text import read
from holdfast.store.folder import folder_of
from holdfast.store.shelf import shelf_folder

STOP = "a-stop-string-of-acme"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    gateway = {"workers": 2, "access_log": True, "key": "sesame"}
    tenants = {"keys": ["of acme"]}
    with Site(tmp_path_factory.mktemp("erase"), gateway=gateway, **{"tenants.acme": tenants}) as one:
        one.wait_ready()
        one.wait(
            "both workers",
            lambda: [r["state"] for r in one.view()["processes"] if r["role"] == "gateway"].count("serving") == 2,
        )
        yield one


def caller(key: str) -> httpx.Client:
    return httpx.Client(trust_env=False, timeout=30, headers={"authorization": f"Bearer {key}"})


def asked(site: Site, client: httpx.Client, **more: object) -> str:
    """One answer to its end; returns its name."""
    messages = [{"role": "user", "content": "Hello"}]
    body = {"model": "pearl", "max_tokens": 8, "messages": messages, "stop": [STOP], **more}
    answer = client.post(f"{site.url}/chat/completions", json=body)
    assert answer.status_code == 200
    return answer.headers["x-holdfast-answer"]


def test_one_tenants_answers_are_gone_and_anothers_are_not(site: Site) -> None:
    settings = read(site.file.read_text())
    journal = shelf_folder("", folder_of(settings).root)

    def journalled() -> int:
        return sum(path.read_bytes().count(STOP.encode()) for path in journal.glob("gateway*"))

    def had(client: httpx.Client, name: str) -> int:
        return client.get(f"{site.url}/streams/{name}").status_code

    with caller("of acme") as acme, caller("sesame") as other:
        theirs = [asked(site, acme, stream=stream) for stream in (True, False, True)]
        kept = asked(site, other)
        assert [had(acme, name) for name in theirs] == [200, 200, 200]
        assert journalled() == 4
        done = site.run("erase", "--tenant", "acme", "--settings", str(site.file))
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("acme: 3 answers in the journal, ")
        assert [had(acme, name) for name in theirs] == [404, 404, 404]
        assert had(other, kept) == 200
        assert journalled() == 1
        assert had(acme, asked(site, acme)) == 200  # the site goes on
    logged = [
        json.loads(line) for path in (site.state / "log").glob("*.access.jsonl") for line in path.open() if line.strip()
    ]
    assert {line["tenant"] for line in logged} >= {"default"}
    assert sum(line["tenant"] == "acme" for line in logged) <= 5  # those after the erasure
    act = json.loads((site.state / "audit.jsonl").read_text().splitlines()[-1])
    assert (act["act"], act["what"]["tenant"], act["what"]["answers"]) == ("erase", "acme", "3")


def test_an_answer_that_runs_is_counted_and_left_alone(site: Site) -> None:
    with caller("of acme") as acme:
        body = {"model": "pearl", "max_tokens": 400, "messages": [{"role": "user", "content": "Count"}], "stream": True}
        with acme.stream("POST", f"{site.url}/chat/completions", json={**body, "ignore_eos": True}) as answer:
            pieces = answer.iter_lines()
            next(pieces)
            done = site.run("erase", "--tenant", "acme", "--settings", str(site.file))
            assert done.returncode == 1
            assert "1 answers of acme still run" in done.stderr
            assert list(pieces)[-2:] == ["data: [DONE]", ""]
    done = site.run("erase", "--tenant", "acme", "--settings", str(site.file))
    assert done.returncode == 0
