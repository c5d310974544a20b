"""What a worker takes is told as it is."""

import asyncio
import os
from pathlib import Path

from prometheus_client import CollectorRegistry

from holdfast.gateway.vitals import Vitals, descriptors, resident_bytes, tasks


def test_an_open_file_is_counted(tmp_path: Path) -> None:
    before = descriptors()
    with (tmp_path / "one").open("w"):
        assert descriptors() == before + 1
    assert descriptors() == before


def test_tasks_are_those_of_the_running_loop() -> None:
    async def story() -> tuple[int, int]:
        before = tasks()
        waiting = asyncio.create_task(asyncio.Event().wait())
        during = tasks()
        waiting.cancel()
        return before, during

    assert asyncio.run(story()) == (1, 2)
    assert tasks() == 0


def test_where_there_is_no_proc_nothing_is_claimed(tmp_path: Path) -> None:
    assert (descriptors(tmp_path), resident_bytes(tmp_path)) == (0, 0)


def test_all_three_are_told_under_the_workers_pid() -> None:
    registry = CollectorRegistry()
    registry.register(Vitals())
    told = {name: registry.get_sample_value(name, {"pid": str(os.getpid())}) for name in NAMES}
    assert told["holdfast_tasks"] == 0
    assert told["holdfast_resident_bytes"] > 1e6
    assert told["holdfast_descriptors_open"] >= 3


NAMES = ("holdfast_tasks", "holdfast_descriptors_open", "holdfast_resident_bytes")
