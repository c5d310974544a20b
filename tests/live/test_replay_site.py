"""A whole site before a real llama.cpp, which can't lead a grammar: killed under a JSON answer, whose client gets it all."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from site_up import Site

from holdfast.pearl.gguf import write_gguf

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from llamacpp_process import ABSENT, PYTHON, SHIPPED

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason=ABSENT)
LIST = {
    "type": "object",
    "properties": {"ages": {"type": "array", "items": {"enum": [10, 25, 75]}, "minItems": 80, "maxItems": 90}},
    "required": ["ages"],
    "additionalProperties": False,
}
TRIES = 5


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("replay")
    model = folder / "pearl"
    shutil.copytree(SHIPPED, model, ignore=shutil.ignore_patterns("*.safetensors"))
    write_gguf(SHIPPED, model / "pearl.gguf")
    replica = {"engine": "llamacpp", "count": 1, "slots": 2, "context_tokens_max": 2048}
    sections = {"model": {"path": str(model), "name": "pearl"}, "engine": {"program": str(PYTHON)}}
    with Site(folder, replica=replica, restart={"free": 50, "deaths_max": 50}, **sections) as site:
        site.wait_ready()
        yield site


def told(site: Site, temperature: float, strike: bool = False) -> tuple[str, int]:
    """What a client reads, and how often the answer moved. `strike`: the engine is killed under it."""
    form = {"type": "json_schema", "json_schema": {"name": "ages", "schema": LIST}}
    body: dict[str, Any] = {"model": "pearl", "seed": 8, "temperature": temperature, "max_tokens": 1500, "stream": True}
    body |= {"messages": [{"role": "user", "content": "Ages."}], "response_format": form}
    body |= {"stream_options": {"include_usage": True}, "thinking": {"type": "disabled"}}
    events: list[Any] = []
    with httpx.stream("POST", f"{site.url}/chat/completions", json=body, timeout=90, trust_env=False) as answer:
        assert answer.status_code == 200, answer.read()
        promised = "exact; greedy, and it is made again from its prompt" if temperature == 0 else "fair; made again"
        assert answer.headers["x-holdfast-continuable"].startswith(promised)
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                events.append(json.loads(line[6:]))
                if strike and len(events) == 20:
                    os.kill(json.loads((site.state / "run" / "replica-0.engine").read_text())["pid"], signal.SIGKILL)
    assert "error" not in events[-1], events[-1]
    said = "".join(one["choices"][0]["delta"].get("content") or "" for one in events if one["choices"])
    return said, events[-1]["usage"]["holdfast"]["moves"]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_json_whose_engine_is_killed_in_the_middle_is_whole_and_the_same(served: Site, temperature: float) -> None:
    whole, moves = told(served, temperature)
    assert moves == 0
    jsonschema.validate(json.loads(whole), LIST)
    for _ in range(TRIES):  # a quick engine may have made all of it before it is killed
        pid = served.pid("replica-0")
        said, moves = told(served, temperature, strike=True)
        assert said == whole
        served.wait("another life", lambda pid=pid: served.pid("replica-0") not in (0, pid) and served.roster())
        if moves:
            return
    raise AssertionError("it was never killed in the middle")
