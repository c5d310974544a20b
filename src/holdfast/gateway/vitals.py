"""What this worker takes of its machine: descriptors, tasks, resident memory. A leak shows here long before it hurts.

Looked up only when somebody scrapes. The pid is a label, since workers share their port and any of them may answer.
"""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

PROC = Path("/proc/self")  # proc(5); where there is none, only tasks are told


def tasks() -> int:
    """Tasks of the running loop; 0 where none runs."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return 0


def descriptors(proc: Path = PROC) -> int:
    """Open file descriptors, the one of this very look left out; 0 where they can't be counted."""
    try:
        return sum(1 for _ in (proc / "fd").iterdir()) - 1
    except OSError:
        return 0


def resident_bytes(proc: Path = PROC) -> int:
    """Resident memory; 0 where it can't be read."""
    try:
        pages = int((proc / "statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


class Vitals(Collector):
    """Shows them to Prometheus."""

    def collect(self) -> Iterator[Metric]:
        pid = str(os.getpid())
        for name, words, value in (
            ("holdfast_tasks", "Asyncio tasks of the worker.", tasks()),
            ("holdfast_descriptors_open", "File descriptors that the worker holds.", descriptors()),
            ("holdfast_resident_bytes", "Resident memory of the worker.", resident_bytes()),
        ):
            family = GaugeMetricFamily(name, words, labels=["pid"])
            family.add_metric([pid], value)
            yield family
