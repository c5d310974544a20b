"""What is told when Triton dies of being mended."""

import asyncio
from pathlib import Path

import pytest
from engine_programs import HEAD, kept

from holdfast.app.mending import Mender
from holdfast.domain.fault import EngineLost
from holdfast.engine.triton import TritonEngine, TritonSettings
from holdfast.host.ports import free_ports

ABORTS = HEAD + "import time; say('up'); sys.stdin.read(); time.sleep(0.5); os.abort()"


def test_its_death_is_known_before_a_repair_that_failed_is_told(tmp_path: Path) -> None:
    """Its connections are cut at once here, and it has ended half a second later."""

    async def story() -> None:
        (port,) = free_ports(1)
        async with kept(tmp_path, ABORTS) as one:
            await one.said("up")
            engine = TritonEngine(f"grpc://127.0.0.1:{port}", one.clock, TritonSettings(), "k")
            with pytest.raises(EngineLost, match="did not help"):
                await Mender(engine, one.process, one.clock)()
            assert one.process.exit is not None
            assert one.process.exit.words() == "was ended by SIGABRT"
            await engine.close()

    asyncio.run(story())
