"""Fixtures of the live tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from site_up import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Makes running sites: `site(replica={"count": 3})`. All are gone after the test."""
    made: list[Site] = []

    def up(**sections: dict[str, object]) -> Site:
        folder = tmp_path / f"site{len(made)}"
        folder.mkdir()
        one = Site(folder, **sections)
        made.append(one)
        one.up()
        return one

    yield up
    for one in made:
        one.close()
