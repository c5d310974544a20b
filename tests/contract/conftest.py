"""One stage an adapter, opened once for all its stories."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from stages import STAGES

pytest.register_assert_rewrite("http_stage")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: the address of a unix socket has room for 107 bytes only."""
    path = Path(tempfile.mkdtemp(prefix="hf"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session", params=list(STAGES))
def stage(request: pytest.FixtureRequest) -> Iterator[object]:
    path = Path(tempfile.mkdtemp(prefix="hf"))
    opened = STAGES[request.param](path)
    yield opened
    opened.end()
    shutil.rmtree(path)
