"""vLLM as a ForeignEngine: answers through `POST /v1/completions` with ids in and ids out, signs of life from its counters.

Its `/health` only tells whether a flag of death was raised: it is green while the engine's own process hangs. What moves is in
`/metrics`, and only when that process has sent something. A `[DONE]` follows errors too, so only a finish reason ends an answer.
"""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any

from holdfast.domain.engine import Abilities, Ability, EngineKind
from holdfast.domain.fault import BadRequest, EngineLost, EngineRefused
from holdfast.domain.release import Release
from holdfast.domain.replica import Load, Probe
from holdfast.domain.request import Chunk, Finish, Generation
from holdfast.engine import exposition
from holdfast.engine.http import HttpDoor
from holdfast.engine.served import Served
from holdfast.engine.serving import Serving
from holdfast.engine.vllm_questions import Questions
from holdfast.engine.vllm_wire import event_of, ids_of, logprobs_of, request
from holdfast.policy.intake import check, rest_tokens

COMPLETIONS = "/v1/completions"
SLOTS = 256  # its own default for --max-num-seqs, which it does not tell


class VllmEngine:
    """Implements the ForeignEngine port. The door is closed with it."""

    def __init__(self, door: HttpDoor, serving: Serving) -> None:
        self._door, self._serving = door, serving
        self._served = Served(door, serving.answer_s, serving.outside)
        self._abilities = Abilities(kind=EngineKind.VLLM)
        self._learnt = False
        self._stirrings = (
            0  # looks that found the cache's use changed: a long prompt is read before anything is counted
        )
        self._cache_use = 0.0

    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        """See the port. Closing it hangs up, at which vLLM aborts the request."""
        check(generation, self._serving.vocab_size, self._serving.context_tokens_max)
        self._check_grammar(generation)
        tokens = rest_tokens(generation, self._serving.context_tokens_max)
        if tokens == 0:
            yield Chunk([], Finish.LENGTH)
            return
        finish: Chunk | None = None
        async with aclosing(self._served.events(COMPLETIONS, request(generation, self._serving, tokens))) as events:
            try:
                async for data in events:
                    chunk = self._chunk(data, generation, finish)
                    if chunk is None:
                        continue
                    if chunk.finish is None:
                        yield chunk
                    else:
                        finish = chunk  # told when its usage is known, which comes right behind it
            except EngineLost:
                if finish is None:
                    raise
        if finish is None:
            raise EngineLost(f"{self._door.url} ended a stream without a finish reason")
        yield finish

    async def probe(self) -> Probe:
        """Its flag of death and its counters. `step` counts engine iterations that made something, and looks that found the
        cache filling."""
        health, counters = await self._both(
            self._door.ask("GET", "/health", None, self._serving.answer_s),
            self._door.ask("GET", "/metrics", None, self._serving.answer_s),
        )
        if health.status == 503:
            raise EngineLost(f"{self._door.url}/health says that the engine behind it is dead", died=True)
        if health.status != 200:
            raise EngineLost(f"{self._door.url}/health answers {health.status}")
        await self._served.still()
        if counters.status != 200:
            return Probe(True, Load(slots=self._serving.slots or SLOTS), f"/metrics answers {counters.status}")
        return Probe(True, self._load(counters.body))

    def describe(self) -> Release | None:
        """See the port: None before `learn`."""
        return self._serving.release(EngineKind.VLLM) if self._learnt else None

    async def learn(self) -> Abilities:
        """See the port. Some answers of a few tokens are asked for."""
        questions = Questions(self._door, self._serving)
        self._serving, self._abilities = await questions.answers()
        await self._served.learn(self._serving.served_as)
        self._learnt = True
        return self._abilities

    async def close(self) -> None:
        """Hang up everything."""
        await self._door.close()

    def _check_grammar(self, generation: Generation) -> None:
        if not generation.sampling.grammar or not self._learnt:
            return
        for needed, when in ((Ability.GRAMMAR, True), (Ability.LED, bool(generation.delivered_ids))):
            if when and not self._abilities.has(needed):
                why = next((one.why for one in self._abilities.findings if one.ability is needed), "")
                raise BadRequest(f"this vLLM can't keep the rest of the answer to its grammar: {why}", "grammar")

    def _chunk(self, data: bytes, generation: Generation, finish: Chunk | None) -> Chunk | None:
        """What one event brings; None for one that brings nothing. What comes after the finish only completes it."""
        where = self._door.url
        if data == b"[DONE]":
            return None
        event = event_of(data, where)
        if event.usage is not None and finish is not None:
            finish.cached_tokens = event.usage.cached_tokens
        if not event.choices or finish is not None:
            return None
        choice = event.choices[0]
        ids, end = ids_of(choice, generation.stop_ids, where)
        if not ids and end is None:
            return None
        likeliest = generation.sampling.logprobs
        return Chunk(ids, end, logprobs_of(choice, len(ids), likeliest) if likeliest >= 0 and ids else None)

    def _load(self, text: bytes) -> Load:
        told = exposition.parse(text)
        use = told.get("vllm:kv_cache_usage_perc", 0.0)
        if use != self._cache_use:
            self._cache_use = use
            self._stirrings += 1
        steps = told.get("vllm:iteration_tokens_total_count", told.get("vllm:generation_tokens_total", 0.0))
        cache_tokens_max = _cache_tokens(exposition.labels(text, "vllm:cache_config_info"))
        return Load(
            step=int(steps) + self._stirrings,
            running=int(told.get("vllm:num_requests_running", 0)),
            queued=int(told.get("vllm:num_requests_waiting", 0)),
            slots=self._serving.slots or SLOTS,
            cache_tokens=round(use * cache_tokens_max),
            cache_tokens_max=cache_tokens_max,
        )

    async def _both(self, first: Coroutine[Any, Any, Any], second: Coroutine[Any, Any, Any]) -> tuple[Any, Any]:
        """Ask both at once; an engine that takes no connection is lost to those who ask how it is."""
        asked = [asyncio.ensure_future(first), asyncio.ensure_future(second)]
        try:
            return await asked[0], await asked[1]
        except EngineRefused as refused:
            raise EngineLost(refused.why) from refused
        finally:
            for one in asked:
                one.cancel()
            await asyncio.gather(*asked, return_exceptions=True)


def _cache_tokens(told: dict[str, str]) -> int:
    """Token places in its cache: told as such by newer builds, else blocks by their size; 0 where neither is."""
    size = told.get("kv_cache_size_tokens", "")
    if size.isdecimal():
        return int(size)
    blocks, block = told.get("num_gpu_blocks", ""), told.get("block_size", "")
    return int(blocks) * int(block) if blocks.isdecimal() and block.isdecimal() else 0
