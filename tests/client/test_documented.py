"""The programs in docs/resuming.md, run as they stand there, against a server that cuts connections."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import ALL, PATH, SAID, Desk, Stand, refusal, told

PAGE = (Path(__file__).parents[2] / "docs" / "resuming.md").read_text("utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CUTS = [[], [0], [150], [700, 300], [1100, 20, 400], [900, 170, 900, 301], [1901, 650]]


def blocks(language: str) -> list[str]:
    return [text for found, text in BLOCK.findall(PAGE) if found == language]


@pytest.fixture
def stand() -> Iterator[Stand]:
    with Stand(Desk()) as one:
        yield one


def run(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("cuts", CUTS, ids=str)
def test_python(stand: Stand, tmp_path: Path, cuts: list[int]) -> None:
    stand.cuts = list(cuts)
    (tmp_path / "ask.py").write_text(blocks("python")[0].replace("http://127.0.0.1:8000/v1", stand.url))
    done = run(sys.executable, "ask.py", folder=tmp_path)
    assert (done.stdout, done.returncode) == (f"{SAID}\n", 0), done.stderr
    assert stand.cuts == []


def test_transports(tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text(blocks("python")[1])
    assert run(sys.executable, "made.py", folder=tmp_path).stderr == ""


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not at hand")
@pytest.mark.parametrize("cuts", CUTS, ids=str)
def test_curl(stand: Stand, tmp_path: Path, cuts: list[int]) -> None:
    stand.cuts = list(cuts)
    done = run("bash", "-c", blocks("bash")[0], folder=tmp_path, HOLDFAST=stand.url, KEY="k")
    assert done.returncode == 0, done.stderr
    assert told((tmp_path / "answer.txt").read_bytes()) == told(ALL)
    assert stand.cuts == []
    assert {one.headers["authorization"] for one in stand.desk.asked} == {"Bearer k"}


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not at hand")
def test_curl_asks_again_for_an_answer_that_is_about_to_begin(stand: Stand, tmp_path: Path) -> None:
    stand.desk.refusals = [refusal(409, "idempotency_in_progress")]
    done = run("bash", "-c", blocks("bash")[0], folder=tmp_path, HOLDFAST=stand.url, KEY="k")
    assert (done.returncode, len(stand.desk.asked)) == (0, 2), done.stderr
    assert told((tmp_path / "answer.txt").read_bytes()) == told(ALL)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not at hand")
def test_curl_stops_at_a_refusal(stand: Stand, tmp_path: Path) -> None:
    stand.desk.refusals = [refusal(422, "request_quarantined")]
    done = run("bash", "-c", blocks("bash")[0], folder=tmp_path, HOLDFAST=stand.url, KEY="k")
    assert (done.returncode, len(stand.desk.asked)) == (1, 1)
    assert "422" in done.stderr


def javascript(stand: Stand, folder: Path) -> subprocess.CompletedProcess[str]:
    text = "\n".join(blocks("javascript")).replace("http://127.0.0.1:8000/v1", stand.url)
    (folder / "ask.mjs").write_text(text)
    return run("node", "ask.mjs", folder=folder)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not at hand")
@pytest.mark.parametrize("cuts", CUTS, ids=str)
def test_javascript(stand: Stand, tmp_path: Path, cuts: list[int]) -> None:
    stand.cuts = list(cuts)
    done = javascript(stand, tmp_path)
    assert (done.stdout, done.returncode) == (SAID, 0), done.stderr
    assert stand.cuts == []
    assert len({one.headers["idempotency-key"] for one in stand.desk.asked if one.method == "POST"}) == 1


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not at hand")
def test_javascript_asks_again_for_an_answer_that_is_about_to_begin(stand: Stand, tmp_path: Path) -> None:
    stand.desk.refusals = [refusal(409, "idempotency_in_progress")]
    assert javascript(stand, tmp_path).stdout == SAID
    assert len(stand.desk.asked) == 2


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not at hand")
def test_javascript_stops_at_a_refusal(stand: Stand, tmp_path: Path) -> None:
    stand.desk.refusals = [None, refusal(404, "stream_not_found")]
    stand.cuts = [800]
    done = javascript(stand, tmp_path)
    assert "404" in done.stderr and stand.desk.asked[-1].path == PATH
    assert len(stand.desk.asked) == 2
