"""A real site whose replica fails half of its answers: it steps down to the smaller model, says so, and comes back."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from holdfast.sim.levers import Pull, pull_lever

SHIPPED = Path(__file__).parents[2] / "src/holdfast/shipped/pearl"
SHORT = {"model": "pearl", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
LONG = {**SHORT, "max_tokens": 60, "thinking": {"type": "enabled"}, "ignore_eos": True}


@pytest.fixture
def levers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where replicas open their levers; the path of a socket must be short."""
    folder = Path(tempfile.mkdtemp(prefix="hf"))
    monkeypatch.setenv("HOLDFAST_LEVERS", str(folder))
    yield folder
    shutil.rmtree(folder)


def test_a_failing_site_steps_down_to_the_smaller_model_and_comes_back(site, levers):
    one = site(
        replica={"count": 1},
        smaller={"path": str(SHIPPED), "name": "tiny"},
        failover={"moves_max": 0},
        breaker={"errors_share": 1.0, "failures_max": 100_000},
        degradation={
            "window_s": 2.0, "volume_min": 10, "step_s": 0.3, "calm_s": 0.5, "max_tokens": 30, "thinking_tokens": 8,
        },
    )  # fmt: skip
    one.wait_ready()
    one.wait("the smaller one", lambda: [place for place in one.roster() if place.get("model") == "tiny"])
    with httpx.Client(base_url=one.url, timeout=30) as client:

        def ask(body, **headers):
            return client.post("/chat/completions", json=body, headers=headers)

        assert "x-holdfast-degraded" not in ask(LONG).headers
        pull_lever(levers / "replica-0", Pull("errors", share=0.5))
        one.wait("rung 4", lambda: ask(SHORT) and one.find_event("rung_changed", after=4))
        first = one.find_event("rung_changed")
        assert (first["before"], first["after"], first["name"]) == (0, 1, "shorter answers")
        assert "answers ended in an error of ours, the limit is 5.0%" in first["why"]

        def by_the_smaller_one():
            told = ask(LONG)
            return told if "model=" in told.headers.get("x-holdfast-degraded", "") else None

        told = one.wait("an answer of the smaller model", by_the_smaller_one)
        assert told.headers["x-holdfast-degraded"] == "max_tokens=30, thinking_tokens=8, model=tiny"
        said = told.json()
        assert (said["model"], said["usage"]["completion_tokens"]) == ("tiny", 30)
        assert said["usage"]["completion_tokens_details"]["reasoning_tokens"] == 9  # and the mark
        assert said["choices"][0]["message"]["content"]
        pull_lever(levers / "replica-0", Pull("heal"))
        whole = ask(LONG, **{"x-holdfast-degrade": "never"}).json()
        assert (whole["model"], whole["usage"]["completion_tokens"]) == ("pearl", 60)
        one.wait("full service", lambda: ask(SHORT) and one.find_event("rung_changed", after=0))
        assert "x-holdfast-degraded" not in ask(LONG).headers
        assert "holdfast_rung 0.0" in client.get(one.url.removesuffix("/v1") + "/metrics").text
