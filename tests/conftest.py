"""Tests import their own support modules by plain name; and how they are dealt to two workers (`pytest -n 2 --dist loadgroup`).

All of tests/live go one after the other in one worker, since each of them wants a machine to itself. They mostly wait, for
processes to start and for faults to be found. Meanwhile the other worker goes through all the rest, file by file.
"""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

for folder in ("story", "live", "store", "pearl"):
    sys.path.insert(0, str(HERE / folder))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        live = HERE / "live" in item.path.parents
        item.add_marker(pytest.mark.xdist_group("live" if live else item.path.stem))
