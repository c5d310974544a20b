"""SGLang, by its native `/generate`: ids in and ids out. Read off the source of 0.5.23; run only against a script.

What has to be known (srt/managers/tokenizer_manager.py, schedule_batch.py, entrypoints/http_server.py):

- `output_ids` grow from event to event, or are only what is new where it was started with --incremental-streaming-output;
  `completion_tokens` tells how many there are in either case, so the last of them are the new ones. Without that switch an
  answer of n tokens costs n * n / 2 ids on the wire.
- Whatever goes wrong once the head is sent, a request of the wrong form too, comes as status 200 and an event: an `error` with
  a code, or a `finish_reason` of type abort with one; `[DONE]` follows all the same.
- A stop whose `matched` is a text is none of ours: "NaN happened" is told so.
- `ignore_eos` switches off stop ids too, and a stop of its own is no stop of ours: ids are looked at here in any case.
- A connection that we close is noticed 2 s after; so an abort is sent along.
- Penalties count what came in this request only: what was delivered before goes as bias. Such a token that comes again pays the
  presence penalty twice.
- Noise is keyed by seed and position under --enable-deterministic-inference, and then the seed goes as it is; without, seeds
  are ignored.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from msgspec import Struct

from holdfast.domain.engine import Abilities, Ability, EngineKind
from holdfast.domain.fault import BadRequest, EngineLost, EngineRefused, Fault
from holdfast.domain.release import Release
from holdfast.domain.replica import Probe
from holdfast.domain.request import Chunk, Finish, Generation, TokenLogprob
from holdfast.engine.answer import Answer, finite, until_over
from holdfast.engine.grammars import plain
from holdfast.engine.http import HttpDoor
from holdfast.engine.served import Served
from holdfast.engine.serving import Serving
from holdfast.engine.sglang_learn import Learner, Pulse
from holdfast.policy.continuation import derived_seed

DONE = b"[DONE]"
SEEDS = 1 << 63
ABORT_S = 2.0
_NOT_NOW = (429, 503)


class _Meta(Struct):
    finish_reason: Any = None
    completion_tokens: int = 0
    cached_tokens: int = 0
    output_token_logprobs: list[Any] = []
    output_top_logprobs: list[Any] = []


class _Event(Struct):
    output_ids: list[int] = []
    meta_info: _Meta = msgspec.field(default_factory=_Meta)
    error: Any = None


class SglangEngine:
    """Implements the ForeignEngine port. The door is closed with it."""

    def __init__(self, door: HttpDoor, serving: Serving) -> None:
        self._door, self._serving = door, serving
        self._served = Served(door, serving.answer_s, serving.outside)
        self._abilities: Abilities | None = None
        self._pulse = Pulse(door, serving.answer_s)
        self._names, self._number = secrets.token_hex(6), 0
        self._aborts: set[asyncio.Task[None]] = set()

    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        """See the port."""
        answer = Answer.to(generation, self._serving)
        self._check_grammar(generation)
        async with aclosing(until_over(answer, self._asked_once, self._door.url)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def probe(self) -> Probe:
        """See the port."""
        probe = await self._pulse.probe()
        await self._served.still()
        return probe

    def describe(self) -> Release | None:
        """See the port."""
        return None if self._abilities is None else self._serving.release(EngineKind.SGLANG)

    async def learn(self) -> Abilities:
        """See the port. Asks for some tokens of a few ids each."""
        learner = Learner(self._door, self._serving, self._pulse)
        self._abilities = await learner.learn()
        self._serving = learner.serving
        await self._served.learn(self._serving.served_as)
        return self._abilities

    async def close(self) -> None:
        """See the port."""
        for task in tuple(self._aborts):
            task.cancel()
        await asyncio.gather(*self._aborts, return_exceptions=True)
        await self._door.close()

    def _check_grammar(self, generation: Generation) -> None:
        if not generation.sampling.grammar:
            return
        if self._abilities is None or not self._abilities.has(Ability.GRAMMAR):
            why = "this SGLang can't hold an answer to a grammar of ours: start it with --grammar-backend llguidance"
            raise BadRequest(why, "grammar")
        if generation.delivered_ids:
            raise BadRequest("SGLang begins a grammar anew at each request: it can't go on within one", "grammar")

    async def _asked_once(self, answer: Answer) -> AsyncGenerator[Chunk, None]:
        """One request, to its end."""
        self._number += 1
        rid = f"holdfast-{self._names}-{self._number}"
        keyed = self._abilities is not None and self._abilities.has(Ability.SEED)
        body = body_of(answer, rid, keyed)
        had, ended = 0, False
        try:
            async with aclosing(self._served.events("/generate", msgspec.json.encode(body))) as events:
                async for data in events:
                    event = self._read(data, had)
                    meta = event.meta_info
                    new = meta.completion_tokens - had
                    had = meta.completion_tokens
                    answer.cached = max(answer.cached, meta.cached_tokens)
                    ended = meta.finish_reason is not None
                    if new > 0:
                        if len(event.output_ids) < new:
                            raise EngineLost(
                                f"{self._door.url} told of {new} tokens and sent {len(event.output_ids)} ids"
                            )
                        yield answer.take(event.output_ids[-new:], _logprobs(answer, meta, new))
                    if ended and not answer.over:
                        finish = self._final(answer, meta.finish_reason)
                        if finish is not None:
                            yield answer.end(finish)
                    if answer.over or ended:
                        return
            raise EngineLost(f"{self._door.url} ended a stream without saying that the answer was over")
        finally:
            if not ended:
                self._abort(rid)

    def _read(self, data: bytes, had: int) -> _Event:
        """Raises the fault that an event tells of, before its ids are believed."""
        if data == DONE:
            raise EngineLost(f"{self._door.url} ended a stream with [DONE] and no finish")
        try:
            event = msgspec.json.decode(data, type=_Event)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise EngineLost(f"{self._door.url} sent what is no event of its dialect: {error}") from error
        if event.error is not None:
            told = event.error if isinstance(event.error, dict) else {"message": event.error}
            raise self._fault(str(told.get("message")), told.get("code"), had)
        reason = event.meta_info.finish_reason
        if reason is None:
            return event
        told = reason if isinstance(reason, dict) else {"type": reason}
        if told.get("type") == "abort":
            raise self._fault(f"aborted: {told.get('message')}", told.get("status_code"), had)
        if isinstance(told.get("matched"), str):
            why = f"{self._door.url} ended an answer for a reason of its own: {told['matched']}"
            raise EngineLost(why).saying(told["matched"])
        if told.get("type") not in ("stop", "length"):
            raise EngineLost(f"{self._door.url} ended an answer for a reason that nobody knows: {told.get('type')}")
        return event

    def _fault(self, said: str, code: object, had: int) -> Fault:
        why = f"{self._door.url}: {said}"
        if had == 0 and code in _NOT_NOW:
            return EngineRefused(why).saying(said)
        return (BadRequest(why) if had == 0 and code == 400 else EngineLost(why)).saying(said)

    def _final(self, answer: Answer, reason: Any) -> Finish | None:
        """The finish of an answer that ended before it was over for us; None: it is asked on."""
        kind = reason.get("type") if isinstance(reason, dict) else reason
        if kind == "length":  # a bound of its own, on the context
            return Finish.LENGTH
        return Finish.STOP if answer.asked.sampling.grammar else None

    def _abort(self, rid: str) -> None:
        """Tell it, without waiting, that nobody listens any more."""
        task = asyncio.ensure_future(self._aborted(rid))
        self._aborts.add(task)
        task.add_done_callback(self._aborts.discard)

    async def _aborted(self, rid: str) -> None:
        try:
            await self._door.ask("POST", "/abort_request", msgspec.json.encode({"rid": rid}), ABORT_S)
        except (EngineLost, EngineRefused):
            return  # it finds out by itself, or is gone


def body_of(answer: Answer, rid: str, keyed: bool) -> dict[str, Any]:
    """The request for what is left of an answer. `keyed`: its noise depends on seed and position alone."""
    generation, sampling = answer.asked, answer.asked.sampling
    seed = generation.seed % SEEDS if keyed else derived_seed(generation.seed, len(answer.ids))
    params: dict[str, Any] = {
        "max_new_tokens": answer.left,
        "temperature": sampling.temperature,
        "top_p": max(sampling.top_p, 1e-6),  # it refuses 0
        "top_k": sampling.top_k or -1,
        "min_p": sampling.min_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "ignore_eos": sampling.ignore_eos,
        "skip_special_tokens": False,
        "sampling_seed": seed,
    }
    if generation.stop_ids:
        params["stop_token_ids"] = list(generation.stop_ids)
    bias = _bias(answer)
    if bias:
        params["logit_bias"] = {str(id): by for id, by in bias.items()}
    if sampling.grammar:
        params["ebnf"] = plain(sampling.grammar)
    body: dict[str, Any] = {
        "rid": rid,
        "input_ids": [*generation.prompt_ids, *answer.ids],
        "stream": True,
        "sampling_params": params,
    }
    if sampling.logprobs >= 0:
        body |= {"return_logprob": True, "top_logprobs_num": sampling.logprobs, "return_text_in_logprobs": False}
    return body


def _bias(answer: Answer) -> dict[int, float]:
    """The request's own, and the penalties that what was delivered has earned."""
    sampling = answer.asked.sampling
    bias: dict[int, float] = {}
    for id, by in sampling.logit_bias:
        bias[id] = bias.get(id, 0.0) + by
    if sampling.presence_penalty or sampling.frequency_penalty:
        for id, count in Counter(answer.ids).items():
            bias[id] = bias.get(id, 0.0) - sampling.frequency_penalty * count - sampling.presence_penalty
    return bias


def _logprobs(answer: Answer, meta: _Meta, new: int) -> list[TokenLogprob]:
    """Of the last `new` tokens: rows of [logprob, id, text], and of the likeliest a list of such rows each."""
    if answer.asked.sampling.logprobs < 0:
        return []
    rows = meta.output_token_logprobs[-new:]
    tops: list[Any] = meta.output_top_logprobs[-new:]
    if len(tops) != len(rows):
        tops = [()] * len(rows)
    return [
        TokenLogprob(row[1], finite(row[0]), tuple((one[1], finite(one[0])) for one in top or ()))
        for row, top in zip(rows, tops, strict=True)
    ]
