"""Admission: asks policy.admission and obeys. A request that must wait sits in one bounded first-come queue."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from holdfast.domain.fault import Expired, Overloaded
from holdfast.domain.ports import Clock
from holdfast.domain.request import Chunk, Generation
from holdfast.gateway.lines import Lines
from holdfast.gateway.service import Layer, Service
from holdfast.policy.admission import Admission, Queue, Shed

SIGN_OF_LIFE_S = 1.0  # a waiting stream gets a keep-alive comment this often


@dataclass
class Gate:
    """The counts that admission judges by. A place is held from admission to the answer's end."""

    admission: Admission
    running: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)

    def leave(self, slots: int) -> None:
        """An answer ended: its place goes to whoever waits longest."""
        self.running -= 1
        self.wake(slots)

    def wake(self, slots: int) -> None:
        """Hand free places to those who wait."""
        while self.waiting and self.running < slots:
            place = self.waiting.popleft()
            if not place.done():
                self.running += 1
                place.set_result(None)

    def forget(self, place: asyncio.Future[None], slots: int) -> None:
        """One who waited is gone; a place it was given meanwhile goes on to the next."""
        if place.done() and not place.cancelled():
            self.leave(slots)
        else:
            place.cancel()
            self.waiting = deque(other for other in self.waiting if other is not place)


async def _patience(place: asyncio.Future[None], seconds: float) -> bool:
    """Wait for a place, but no longer than `seconds`. Returns whether it came."""
    done, _ = await asyncio.wait({place}, timeout=max(0.0, seconds))
    return bool(done)


def admit(gate: Gate, lines: Lines, clock: Clock) -> Layer:
    """Refuse, or hold back, what the replicas have no room for."""
    lines.on_change(lambda: gate.wake(lines.slots()))

    async def wait(generation: Generation, verdict: Queue) -> AsyncGenerator[Chunk, None]:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        gate.waiting.append(place)
        began, held = clock.now(), False
        try:
            while not held:
                now = clock.now()
                patience_s = began + gate.admission.queue_wait_s - now
                if now >= generation.deadline:
                    raise Expired(f"the request's deadline passed while it waited: {verdict.why}")
                if patience_s <= 0:
                    shed = gate.admission.outwaited(now - began)
                    raise Overloaded(shed.why, shed.retry_after_s, shed.status)
                if await _patience(place, min(SIGN_OF_LIFE_S, patience_s, generation.deadline - now)):
                    held = True
                else:
                    yield Chunk([], waiting=verdict.why)
        finally:
            if not held:
                gate.forget(place, lines.slots())

    def layer(inner: Service) -> Service:
        async def service(generation: Generation) -> AsyncGenerator[Chunk, None]:
            verdict: Queue | Shed | None = None
            if not generation.urgent:  # a client holds the beginning of this one: it waits for nobody
                ask = gate.admission.ask(clock.now(), gate.running, len(gate.waiting), lines.slots())
                verdict = ask if isinstance(ask, Queue | Shed) else None
            if isinstance(verdict, Shed):
                raise Overloaded(verdict.why, verdict.retry_after_s, verdict.status)
            if isinstance(verdict, Queue):
                async with aclosing(wait(generation, verdict)) as signs:
                    async for sign in signs:
                        yield sign
            else:
                gate.running += 1
            try:
                async with aclosing(inner(generation)) as chunks:
                    async for chunk in chunks:
                        yield chunk
            finally:
                gate.leave(lines.slots())

        return service

    return layer
