"""Failover: owns the transcript, and continues it elsewhere when an attempt is lost.

It stands above pick, so that each try may choose another replica; it writes ids down before it passes them on, so that
nothing is delivered that is not in the transcript. The attempt that was left is fenced by its own closing: the line forgets
the stream's number before this layer calls down again, so a late token has nobody to go to.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from holdfast.domain.event import AnswerMoved, Emit
from holdfast.domain.fault import EngineLost, EngineRefused, Expired, NoReplica
from holdfast.domain.ports import Clock
from holdfast.domain.request import Chunk, Generation
from holdfast.domain.transcript import Transcript
from holdfast.gateway.lines import Lines
from holdfast.gateway.service import Layer, Service
from holdfast.policy import continuation


def failover(lines: Lines, moves_max: int, clock: Clock, emit: Emit) -> Layer:
    """Carry an answer on, from replica to replica, until it ends or nothing more can be done."""

    def left(transcript: Transcript, fault: EngineLost | EngineRefused) -> Chunk | None:
        """Decide after a lost attempt: None to go on, a last chunk if it was complete; raises the fault if it must end."""
        verdict = continuation.after_loss(transcript, moves_max, clock.now())
        if isinstance(verdict, continuation.GiveUp):
            if clock.now() >= transcript.asked.deadline:
                raise Expired(f"{verdict.why}; last: {fault.why}") from fault
            raise EngineLost(f"{verdict.why}; last: {fault.why}") from fault
        if isinstance(verdict, continuation.Complete):
            return Chunk([], finish=verdict.finish, moves=transcript.moves)
        if isinstance(fault, EngineLost):
            transcript.moves += 1
            emit(
                AnswerMoved(
                    generation=transcript.asked.id,
                    replica=fault.replica,
                    token=len(transcript.delivered_ids),
                    why=f"{verdict.why}: {fault.why}",
                )
            )
        return None

    async def rested(generation: Generation, pause_s: float, why: str) -> bool:
        """Wait a little, or until who may take traffic changes. Returns whether it did; raises Expired at the deadline."""
        now = clock.now()
        if now >= generation.deadline:
            raise Expired(f"the request's deadline passed while it waited for a replica: {why}")
        return await lines.changed(min(pause_s, generation.deadline - now))

    def layer(inner: Service) -> Service:
        async def service(generation: Generation) -> AsyncGenerator[Chunk, None]:
            transcript = Transcript.of(generation)
            attempt, tried, fruitless = generation, frozenset[str](), 0
            while True:
                had, again = len(transcript.delivered_ids), False
                try:
                    async with aclosing(inner(attempt)) as chunks:
                        async for chunk in chunks:
                            if chunk.epoch != transcript.epoch and not chunk.waiting:
                                continue  # made by an attempt that is fenced
                            transcript.write(chunk)
                            chunk.moves = transcript.moves
                            yield chunk
                    return
                except (EngineLost, EngineRefused) as fault:
                    again, why = fault.replica in tried, fault.why
                    tried |= {fault.replica}
                    last = left(transcript, fault)
                except NoReplica as fault:
                    again, why, last = True, fault.why, None
                if last is not None:
                    yield last
                    return
                attempt = transcript.rest(tried)
                fruitless = fruitless + 1 if len(transcript.delivered_ids) == had else 0
                if again and fruitless and not await rested(generation, continuation.pause_s(fruitless), why):
                    yield Chunk([], waiting=why, moves=transcript.moves)

        return service

    return layer
