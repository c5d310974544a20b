"""Bloat: close to the limit leaves in order, beyond it at once."""

import pytest

from holdfast.policy.bloat import LEAN, Bloated, of_process


@pytest.mark.parametrize(("resident", "limit"), [(899.0, 1000.0), (None, 1000.0), (10_000.0, 0.0)])
def test_lean(resident: float | None, limit: float) -> None:
    assert of_process(resident, limit) == LEAN


def test_close_to_the_limit_it_leaves_in_order() -> None:
    assert of_process(900.0, 1000.0) == Bloated("it holds 900 MiB of memory, its limit is 1000 MiB", over=False)


def test_beyond_the_limit_nobody_waits() -> None:
    assert of_process(1000.0, 1000.0) == Bloated("it holds 1000 MiB of memory, its limit is 1000 MiB", over=True)
