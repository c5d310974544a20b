"""A worker has given a sign of life before anybody is told that it is there."""

import asyncio
import socket
from pathlib import Path
from random import Random

from holdfast.dialect.open import open_dialect
from holdfast.domain.ports import Line
from holdfast.domain.roster import Place, Roster
from holdfast.domain.settings import Settings
from holdfast.domain.settings_door import Gateway
from holdfast.gateway.worker import Parts, work
from holdfast.host.clock import MonotonicClock

SHIPPED = Path(__file__).parents[2] / "src/holdfast/shipped/pearl"


async def nobody(place: Place) -> Line:
    raise AssertionError("the roster is empty")


def test_who_freezes_right_behind_its_announcement_has_a_pulse_that_stands_still() -> None:
    told: list[str] = []

    async def run() -> None:
        leave = asyncio.Event()

        def announce(address: str) -> None:
            told.append("here I am")
            leave.set()

        parts = Parts(
            dialler=nobody,
            dialect=open_dialect(SHIPPED),
            read_roster=Roster,
            context_tokens_max=1000,
            clock=MonotonicClock(),
            unix_s=lambda: 7.0,
            bits=Random(1).getrandbits,
            emit=lambda event: None,
            announce=announce,
            listener=socket.create_server(("127.0.0.1", 0)),
            beat=lambda now: told.append("a beat"),
        )
        await work(Settings(gateway=Gateway(drain_s=0.1)), parts, leave)

    asyncio.run(run())
    assert told[:2] == ["a beat", "here I am"]
