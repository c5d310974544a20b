"""Trials: a replica whose breaker is open is asked for one token by the gateway itself. No client's answer is the experiment.

The question goes over the line that answers go over, so it finds out what they would: a process that is gone, a loop that
stands, an engine that fails every step.
"""

import asyncio
from contextlib import aclosing

from holdfast.domain.fault import BadRequest, EngineLost, EngineRefused
from holdfast.domain.ports import Clock, Line
from holdfast.domain.request import Generation, Sampling

PATIENCE_S = 10.0  # what [failover] first_token_s leaves a stream by default: a good replica may be busy
PROMPT_IDS = [1, 2, 3]  # in every vocabulary
_GREEDY = Sampling(temperature=0.0, ignore_eos=True)


async def trial(line: Line, number: int, clock: Clock, patience_s: float = PATIENCE_S) -> str | None:
    """Ask for one token. Returns an empty text when it came, why not, or None when that tells nothing: it was too full."""
    generation = Generation(id=f"trial-{number}", prompt_ids=list(PROMPT_IDS), sampling=_GREEDY, max_tokens=1)
    answer = asyncio.ensure_future(_answer(line, generation))
    timer = asyncio.ensure_future(clock.sleep(patience_s))
    try:
        await asyncio.wait({answer, timer}, return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer.done() else f"no token within {patience_s:g} s"
    finally:
        for task in (answer, timer):
            task.cancel()
        await asyncio.gather(answer, timer, return_exceptions=True)


async def _answer(line: Line, generation: Generation) -> str | None:
    try:
        async with aclosing(line.generate(generation)) as chunks:
            async for chunk in chunks:
                if chunk.finish is not None:
                    return ""
    except EngineRefused:
        return None
    except BadRequest:
        return ""  # it has read the question and thought about it
    except EngineLost as lost:
        return None if lost.planned else lost.why
    return "the stream ended without a finish"
