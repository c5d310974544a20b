"""Failover: owns the transcript, and continues it elsewhere when an attempt is lost.

It stands above pick, so that each try may choose another replica; it writes ids down before it passes them on, so that
nothing is delivered that is not in the transcript. The attempt that was left is fenced by its own closing: the line forgets
the stream's number before this layer calls down again, so a late token has nobody to go to.

Going on must not be the second disaster: an engine's death is put before the quarantine before its answers are carried to the
next engine, and moves after the first draw on a budget. Pick sees to it that they don't arrive all at once.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from holdfast.domain.event import AnswerMoved, Emit
from holdfast.domain.fault import EngineLost, EngineRefused, Expired, NoReplica
from holdfast.domain.ports import Clock
from holdfast.domain.request import Chunk, Generation
from holdfast.domain.transcript import Transcript
from holdfast.gateway.lane import unread
from holdfast.gateway.lines import Lines
from holdfast.gateway.quarantine import Quarantine
from holdfast.gateway.service import Layer, Service
from holdfast.policy import continuation
from holdfast.policy.retry_budget import STALL_FACTOR, RetryBudget

BUDGET_LOOK_S = 0.5  # one that waits for the budget asks again, and shows that it lives, this often


def failover(
    lines: Lines, moves_max: int, clock: Clock, emit: Emit, *, quarantine: Quarantine, budget: RetryBudget
) -> Layer:
    """Carry an answer on, from replica to replica, until it ends or nothing more can be done."""

    def left(transcript: Transcript, fault: EngineLost | EngineRefused, nobody: bool) -> Chunk | None:
        """Decide after a lost attempt: None to go on, a last chunk if it was complete; raises the fault if it must end. `nobody`
        makes it again as it was delivered."""
        verdict = continuation.after_loss(transcript, moves_max, clock.now(), nobody)
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
                    replica=fault.name,
                    token=len(transcript.delivered_ids),
                    why=f"{verdict.why}: {fault.why}",
                )
            )
        return None

    async def lost(
        transcript: Transcript, attempt: Generation, fault: EngineLost | EngineRefused, had: int, nobody: bool
    ) -> Chunk | None:
        """An attempt that began with `had` tokens has ended without a finish. See `left`; raises Poisonous too."""
        if isinstance(fault, EngineLost) and fault.died:
            await quarantine.judge(attempt, fault, len(transcript.delivered_ids) - had)
        else:
            quarantine.ended(attempt.id)
        return left(transcript, fault, nobody)

    def willing(boots: frozenset[str]) -> bool:
        """Whether one of these still takes traffic."""
        return any(known.may_serve for boot, known in lines.by_boot.items() if boot in boots)

    def orphaned(transcript: Transcript, fault: NoReplica) -> None:
        """Raise EngineLost if there is nobody, and will be nobody, who may go on with it."""
        if transcript.begun is not None and transcript.delivered_ids:
            why = lines.kinds.closed(transcript.begun, transcript.asked.sampling)
            if why:
                raise EngineLost(f"nobody here may go on with it: {why}") from fault

    async def rested(generation: Generation, pause_s: float, why: str) -> bool:
        """Wait a little, or until who may take traffic changes. Returns whether it did; raises Expired at the deadline."""
        now = clock.now()
        if now >= generation.deadline:
            raise Expired(f"the request's deadline passed while it waited for a replica: {why}")
        return await lines.changed(min(pause_s, generation.deadline - now))

    async def paid(transcript: Transcript, fault: EngineLost | EngineRefused | None) -> AsyncGenerator[Chunk, None]:
        """Pay for a move from the budget; gives signs of life while that takes."""
        if not isinstance(fault, EngineLost) or fault.planned or transcript.moves < 2:
            return
        cost = (len(transcript.asked.prompt_ids) + len(transcript.delivered_ids)) * (1 if fault.died else STALL_FACTOR)
        while (wait_s := budget.take(cost, clock.now())) > 0:
            why = f"answers have moved so often of late that this one waits {wait_s:.1f} s; last: {fault.why}"
            await rested(transcript.asked, min(wait_s, BUDGET_LOOK_S), why)
            yield Chunk([], waiting=why, moves=transcript.moves)

    def layer(inner: Service) -> Service:
        async def service(generation: Generation) -> AsyncGenerator[Chunk, None]:
            transcript = Transcript.of(generation)
            attempt, fruitless = quarantine.opened(generation), 0
            tried = unlike = frozenset[str]()  # boots; where it did not come out again, by then
            budget.admit(unread(generation) + generation.max_tokens, clock.now())
            try:
                while True:
                    had, again, fault, last = len(transcript.delivered_ids), False, None, None
                    try:
                        chunks = inner(attempt)
                        try:
                            async for chunk in chunks:
                                if chunk.epoch != transcript.epoch and not chunk.waiting:
                                    continue  # made by an attempt that is fenced
                                transcript.write(chunk)
                                if attempt.alone:
                                    quarantine.made(attempt.id, len(transcript.delivered_ids) - had)
                                if transcript.moves:
                                    chunk.moves = transcript.moves
                                yield chunk
                        finally:
                            await chunks.aclose()
                        return
                    except (EngineLost, EngineRefused) as found:
                        fault, why = found, found.why
                    except NoReplica as found:
                        again, why = True, found.why
                        orphaned(transcript, found)
                    if fault is not None:
                        departed, here = _unrepeatable(fault), frozenset((fault.replica,))
                        again = here <= (unlike if departed else tried)
                        nobody = departed and again and not willing(tried - unlike)
                        tried |= here
                        if departed:
                            tried = unlike = unlike | here  # now rather where it was refused, or was lost
                        if transcript.begun is None and transcript.delivered_ids:
                            transcript.begun = fault.release
                        last = await lost(transcript, attempt, fault, had, nobody)
                    if last is not None:
                        yield last
                        return
                    async with aclosing(paid(transcript, fault)) as signs:
                        async for sign in signs:
                            yield sign
                    attempt = quarantine.marked(transcript.rest(tried))
                    fruitless = fruitless + 1 if len(transcript.delivered_ids) == had else 0
                    if again and fruitless and not await rested(generation, continuation.pause_s(fruitless), why):
                        yield Chunk([], waiting=why, moves=transcript.moves)
            finally:
                quarantine.closed(generation.id)

        return service

    return layer


def _unrepeatable(fault: EngineLost | EngineRefused) -> bool:
    """Whether the replica is well, and the answer does not come out there as it was delivered."""
    return isinstance(fault, EngineLost) and fault.unrepeatable
