"""A site over engines that run already, one of which is not there: commands end without it, and say so."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from site_up import Site

from holdfast.host.clock import MonotonicClock
from holdfast.host.ports import free_ports
from holdfast.sim.foreign_model import ForeignScript
from holdfast.sim.vllm_server import VllmServer

SHIPPED = Path(__file__).parents[2] / "src" / "holdfast" / "shipped" / "pearl"
pytestmark = pytest.mark.skipif(not (SHIPPED / "model.safetensors").exists(), reason="the shipped model is not here")


@pytest.fixture
def urls() -> Iterator[list[str]]:
    """Two engines at work, in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    servers = [VllmServer(ForeignScript(), MonotonicClock()) for _ in range(2)]
    yield [asyncio.run_coroutine_threadsafe(one.door.open(), loop).result() for one in servers]
    for one in servers:
        asyncio.run_coroutine_threadsafe(one.door.close(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_commands_do_not_wait_for_an_engine_that_is_not_there(site, urls):
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    one: Site = site(
        model={"path": str(SHIPPED)},
        replica={"engine": "vllm", "count": 3, "url": ", ".join((urls[0], nobody, urls[1])), "drain_s": 1.0},
        restart={"start_s": 24.0},  # a third of it is waited for, until the engine is called away
    )

    def away() -> bool:
        return any(shown.get("away") for shown in one.view().get("processes", []))

    one.wait("two in service, one that waits", lambda: len(one.roster()) == 2 and away())
    said = f"Not waited for: replica-1, which waits for {nobody}, for "
    scaled = one.run("scale", "2", "--settings", str(one.file))
    assert (scaled.returncode, scaled.stderr) == (0, "")
    assert said in scaled.stdout
    assert [shown["name"] for shown in one.view()["processes"] if shown["state"] == "serving"][:2] == [
        "replica-0",
        "gateway-0",
    ]
    fewer = one.run("scale", "1", "--settings", str(one.file))
    assert (fewer.returncode, fewer.stderr) == (0, "")
    assert "Not waited for" not in fewer.stdout  # who is away is the one that has left
    back = one.run("scale", "3", "--settings", str(one.file))
    assert (back.returncode, back.stderr) == (0, "")
    assert said in back.stdout
    drained = one.run("drain", "replica-1", "--settings", str(one.file))
    assert drained.returncode == 0, drained.stderr
    again = one.run("undrain", "replica-1", "--settings", str(one.file))
    assert (again.returncode, again.stderr) == (0, "")
    assert f"replica-1 runs, and waits for {nobody}, for " in again.stdout
    upgraded = one.run("upgrade", str(one.file), "--all")
    assert (upgraded.returncode, upgraded.stderr) == (0, "")
    assert "Upgrade 1 is complete" in upgraded.stdout
    assert said in upgraded.stdout
    assert one.stop() == 0
