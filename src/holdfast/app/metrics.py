"""The metrics of all workers on one page, for the control plane: each worker shows its own on a unix socket of the state folder.

All workers share the API's port, so whoever asks there hears one of them; here each is asked, and its figures carry its name.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

ASK_S = 2.0  # a worker that is frozen is left out
PAGE_BYTES_MAX = 16 * 1024 * 1024


async def show_metrics(path: Path, registry: CollectorRegistry) -> None:
    """Write the page to whoever connects, until cancelled. Where the socket can't be had, nothing is shown."""

    def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(generate_latest(registry))
        writer.close()

    with contextlib.suppress(OSError), _listener(path) as listener:
        server = await asyncio.start_unix_server(answer, sock=listener)
        await server.serve_forever()
    await asyncio.Event().wait()


@contextlib.contextmanager
def _listener(path: Path) -> Iterator[socket.socket]:
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _sockets(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.pm"))


async def gathered(sockets: Path) -> bytes:
    """The page of all workers whose sockets lie there."""
    paths = _sockets(sockets)
    pages = await asyncio.gather(*(_ask(path) for path in paths))
    registry = CollectorRegistry()
    registry.register(_Merged({path.stem: page for path, page in zip(paths, pages, strict=True) if page}))
    return generate_latest(registry)


async def _ask(path: Path) -> str:
    try:
        async with asyncio.timeout(ASK_S):
            reader, writer = await asyncio.open_unix_connection(path, limit=PAGE_BYTES_MAX)
            try:
                return (await reader.read(-1)).decode("utf-8", "replace")
            finally:
                writer.close()
    except OSError:  # of a worker that is gone, or too late: TimeoutError is one
        return ""


class _Merged:
    """Pages by worker, as one."""

    def __init__(self, pages: dict[str, str]) -> None:
        self._pages = pages

    def collect(self) -> list[Metric]:
        families: dict[str, Metric] = {}
        for worker, page in self._pages.items():
            for one in text_string_to_metric_families(page):
                family = families.setdefault(one.name, Metric(one.name, one.documentation, one.type))
                for sample in one.samples:
                    labels = {**sample.labels, "worker": worker}
                    family.samples.append(Sample(sample.name, labels, sample.value, sample.timestamp, sample.exemplar))
        return list(families.values())
