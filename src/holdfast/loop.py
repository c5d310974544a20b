"""Runs any Procedure: look, decide, act, write down, wait.

The loop is where a procedure's errors end: an act that the world refuses is told and, after `retry_s`, looked at afresh. It
never skips the look, so a step is always decided on what is, not on what was expected.
"""

import asyncio
from typing import Protocol

from holdfast.domain.event import Emit, StepFailed, StepTaken
from holdfast.domain.fault import Fault
from holdfast.domain.ports import Clock
from holdfast.domain.procedure import Done, Procedure, Seen, Wait

RETRY_S = 1.0


class Wake(Protocol):
    """Something happened: look before the wait is over. asyncio.Event is one."""

    def is_set(self) -> bool: ...
    def clear(self) -> None: ...
    async def wait(self) -> object: ...


async def run(procedure: Procedure[Seen], clock: Clock, emit: Emit, wake: Wake) -> Done:
    """Run until `next_step` says Done, and return it.

    `wake` ends a wait early. It is cleared before each look, so what happens during a look causes another one.
    """
    name = type(procedure).__name__.lower()
    while True:
        wake.clear()
        step = procedure.next_step(await procedure.look(), clock.now())
        if isinstance(step, Done):
            return step
        if isinstance(step, Wait):
            await _until(step.until, clock, wake)
            continue
        try:
            await procedure.act(step)
        except (OSError, Fault) as error:
            emit(StepFailed(why=f"{step.why}; it failed: {error}.", procedure=name, step=step.word()))
            await _until(clock.now() + RETRY_S, clock, wake)
        else:
            emit(StepTaken(why=step.why, procedure=name, step=step.word()))


async def _until(moment: float, clock: Clock, wake: Wake) -> None:
    rest_s = moment - clock.now()
    if rest_s <= 0 or wake.is_set():
        return
    waits = (asyncio.ensure_future(clock.sleep(rest_s)), asyncio.ensure_future(wake.wait()))
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
