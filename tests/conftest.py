"""Tests import their own support modules by plain name; and how they are dealt to two workers (`pytest -n 2`).

All of tests/live go one after the other in one worker, since each of them wants a machine to itself. They mostly wait, for
processes to start and for faults to be found. Meanwhile the other worker goes through all the rest, file by file.

(`--dist loadgroup` would do it by marks, and deals as if there were none under pytest 9.2: pytest-xdist#1386.)
"""

import sys
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

for folder in ("story", "live", "store", "pearl"):
    sys.path.insert(0, str(Path(__file__).parent / folder))


class LiveApart(LoadScopeScheduling):
    """Deals files, of which those in tests/live count as one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "live" if "live" in Path(file).parts else file


@pytest.hookimpl(optionalhook=True)  # so that `-p no:xdist` works
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LiveApart:
    return LiveApart(config, log)
