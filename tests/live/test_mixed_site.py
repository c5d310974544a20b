"""A real site with two kinds of engines on one model folder: an answer ends as the kind of its first token would have it."""

import json
from pathlib import Path
from typing import Any

import httpx
from site_up import Site
from streaming import Streams, body

TOKENS, QUESTIONS = 120, 4
SHIPPED = Path(__file__).parents[2] / "src" / "holdfast" / "shipped" / "pearl"


def ask(one: Site, **fields: Any) -> httpx.Response:
    asked = body(0, TOKENS, stream=False) | fields
    return httpx.post(f"{one.url}/chat/completions", json=asked, timeout=60, trust_env=False)


def both(one: Site, number: int) -> set[str]:
    """The undisturbed answers of both kinds: whoever was not asked for longest is asked next."""
    found: set[str] = set()
    for _ in range(8):
        message = ask(one, **body(number, TOKENS, stream=False)).json()["choices"][0]["message"]
        found.add((message.get("reasoning_content") or "") + message["content"])
        if len(found) == 2:
            break
    return found


def test_the_smaller_model_beside_a_mix_is_served_by_all_its_replicas(site, tmp_path):
    small = tmp_path / "pearl-mini"
    small.symlink_to(SHIPPED, target_is_directory=True)
    one = site(engine={"mix": ["embedded"]}, smaller={"path": str(small), "count": 2})
    one.wait("all in service", lambda: len(one.roster()) == 4)
    assert sorted(place["replica"] for place in one.roster() if place["model"]) == ["smaller-0", "smaller-1"]
    assert one.stop() == 0


def test_two_kinds_serve_one_model_and_each_answer_stays_with_its_own(site):
    one = site(engine={"mix": ["embedded"]}, replica={"token_ms": 10.0}, restart={"free": 9})
    one.wait_ready()
    one.wait("both kinds in service", lambda: len(one.roster()) == 2)
    roster = json.loads((one.state / "roster.json").read_text())
    assert [kind["engine"] for kind in roster["kinds"]] in (["scripted", "embedded"], ["embedded", "scripted"])
    assert len({kind["weights"] for kind in roster["kinds"]}) == 1
    assert {place["digest"] for place in roster["places"]} == {kind["digest"] for kind in roster["kinds"]}
    calm = [both(one, number) for number in range(QUESTIONS)]
    assert [len(answers) for answers in calm] == [2] * QUESTIONS, "two kinds, two answers"
    streams = Streams(one, QUESTIONS, TOKENS).start()
    one.kill("replica-0")
    for got, answers in zip(streams.join(), calm, strict=True):
        assert got.end == "length"
        assert got.text in answers
    assert one.find_event("answer_moved") is not None
    for _ in range(4):  # the scripted one can't hold a form: it is not asked
        told = ask(one, response_format={"type": "json_object"}, max_tokens=20, ignore_eos=False)
        assert told.status_code == 200, told.text
        assert told.headers["x-holdfast-continuable"].endswith("its grammar is led through what was delivered")
    assert one.stop() == 0
