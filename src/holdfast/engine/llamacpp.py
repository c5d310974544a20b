"""llama.cpp's server, by its own dialect: `/completion` with ids in and ids out, `/metrics` or `/slots` for its progress.

What its streams do that has to be known (tools/server/server-context.cpp, and seen at the real server):

- A token after which the text ends inside a character is not told in a stream at all: neither its text nor its id. Only
  `tokens_predicted` shows that it was made. The ids are then read off the character that came, where the vocabulary leaves no
  choice, and else are asked for again, whole. A router that trusts the ids of the stream loses tokens.
- An event with `prompt_progress` carries a token 0 that nobody has made.
- It stops at any token that ends a text for the model, asked or not. Where that is no stop of ours, the answer is asked on.
- Penalties count the prompt too, here they must not: what they take from the prompt's tokens is given back as bias. A token of
  the prompt that comes into the answer within one attempt then escapes the presence penalty.
- The last event is no `[DONE]`: an answer without `"stop": true` has been cut.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
from msgspec import Struct

from holdfast.domain.engine import Abilities, Ability, EngineKind
from holdfast.domain.fault import BadRequest, EngineLost
from holdfast.domain.release import Release
from holdfast.domain.replica import Probe
from holdfast.domain.request import Chunk, Finish, Generation, Sampling, TokenLogprob
from holdfast.engine.answer import Answer, finite, until_over
from holdfast.engine.grammars import plain
from holdfast.engine.http import HttpDoor, fault_of
from holdfast.engine.llamacpp_learn import GRAMMAR, Learner, Pulse
from holdfast.engine.replay import departed, replayed
from holdfast.engine.served import Served
from holdfast.engine.serving import Serving
from holdfast.engine.spelling import Spelling
from holdfast.policy.continuation import derived_seed

SEEDS = 0xFFFFFFFF  # its seeds are 32 bits wide, and the highest means any
REDO_S = 120.0  # for ids that a stream has left out
_FIELDS = [
    "tokens",
    "tokens_predicted",
    "stop",
    "stop_type",
    "truncated",
]  # of the last event
_ORDER = ["penalties", "temperature", "min_p", "top_k", "top_p"]  # as pearl's sampler has it


class _Progress(Struct):
    cache: int = 0


class _Likely(Struct):
    id: int
    logprob: float | None = None


class _Told(Struct):
    id: int
    logprob: float | None = None
    top_logprobs: list[_Likely] = []


class _Event(Struct):
    content: str = ""
    tokens: list[int] = []
    tokens_predicted: int = 0
    stop: bool = False
    stop_type: str = ""
    truncated: bool = False
    prompt_progress: _Progress | None = None
    completion_probabilities: list[_Told] = []
    error: Any = None


class LlamaCppEngine:
    """Implements the ForeignEngine port. `spelling` is that of the model's folder; without, ids that a stream leaves out are
    always asked for again."""

    def __init__(self, door: HttpDoor, serving: Serving, spelling: Spelling | None = None) -> None:
        self._door, self._serving, self._spelling = door, serving, spelling
        self._served = Served(door, serving.answer_s, serving.outside)
        self._abilities: Abilities | None = None
        self._pulse = Pulse(door, serving.answer_s)

    @replayed
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
        return None if self._abilities is None else self._serving.release(EngineKind.LLAMACPP)

    async def learn(self) -> Abilities:
        """See the port. Asks for some tokens of a few ids each; takes a few forward passes."""
        learner = Learner(self._door, self._serving, self._pulse)
        self._abilities = await learner.learn()
        self._serving = learner.serving
        await self._served.learn(self._serving.served_as)
        return self._abilities

    async def close(self) -> None:
        """See the port."""
        await self._door.close()

    def _check_grammar(self, generation: Generation) -> None:
        if not generation.sampling.grammar:
            return
        if self._abilities is None or not self._abilities.has(Ability.GRAMMAR):
            why = "this llama.cpp can't hold an answer to a grammar of ours: it was built without llguidance"
            raise BadRequest(why, "grammar")

    async def _asked_once(self, answer: Answer) -> AsyncGenerator[Chunk, None]:
        """One request, until its end, or until ids are missing that can't be read off its text."""
        body = self._body(answer, answer.left)
        had = 0  # tokens that this request has made and told
        async with aclosing(self._served.events("/completion", msgspec.json.encode(body))) as events:
            async for data in events:
                event = self._read(data)
                if event.prompt_progress is not None:
                    answer.cached = max(answer.cached, event.prompt_progress.cache)
                    continue
                rows = _logprobs(answer, event)
                ids, missing = event.tokens, event.tokens_predicted - had - len(event.tokens)
                if missing > 0:
                    found = self._spelt(answer, event, missing)
                    if found is None and answer.asked.sampling.grammar:  # nothing goes on within one: the stream waits
                        again = await self._again(answer, missing, event.tokens)
                        found, rows = again.tokens, [*_logprobs(answer, again), *rows]
                    if found is None:
                        break
                    ids = [*found, *ids]
                had += len(ids)
                if ids:
                    yield answer.take(ids, rows)
                if event.stop:
                    self._check_end(event)
                    if event.stop_type == "eos" and answer.asked.sampling.grammar and not answer.over:
                        yield answer.end(Finish.STOP)
                if answer.over or event.stop:
                    return
            else:
                raise EngineLost(f"{self._door.url} ended a stream without saying that the answer was over")
        event = await self._again(answer, missing)
        yield answer.take(event.tokens, _logprobs(answer, event))

    def _body(self, answer: Answer, tokens: int) -> dict[str, Any]:
        return body_of(answer.asked, answer.ids, tokens, self._serving.context_tokens_max)

    def _read(self, data: bytes) -> _Event:
        try:
            event = msgspec.json.decode(data, type=_Event)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise EngineLost(f"{self._door.url} sent what is no event of its dialect: {error}") from error
        if event.error is not None:
            said = event.error.get("message") if isinstance(event.error, dict) else event.error
            raise EngineLost(f"{self._door.url} failed in the middle of an answer: {said}").saying(str(said))
        return event

    def _check_end(self, event: _Event) -> None:
        if event.stop_type not in ("eos", "limit"):
            raise EngineLost(f"{self._door.url} ended an answer for a reason of its own: {event.stop_type or 'none'}")

    def _spelt(self, answer: Answer, event: _Event, missing: int) -> list[int] | None:
        """The ids that came before those of the event, out of the text that came with them."""
        if event.stop or answer.asked.sampling.logprobs >= 0:
            return None
        if self._spelling is None or "\ufffd" in event.content:
            return None
        spelt = event.content.encode()
        last = b"".join(map(self._spelling.bytes_of, event.tokens))
        return self._spelling.the_only(spelt[: len(spelt) - len(last)], missing) if spelt.endswith(last) else None

    async def _again(self, answer: Answer, count: int, then: Sequence[int] = ()) -> _Event:
        """The next `count` ids, made once more and told whole: under a grammar, from the answer's beginning. `then` are those
        that the stream had behind them: it goes on, so it must be the same answer."""
        held = bool(answer.asked.sampling.grammar)
        begun, before = ([], answer.ids) if held else (answer.ids, [])
        start, end = len(before), len(before) + min(count, answer.left)
        body = body_of(answer.asked, begun, end + len(then), self._serving.context_tokens_max) | {"stream": False}
        told = await self._door.ask("POST", "/completion", msgspec.json.encode(body), REDO_S)
        if told.status != 200:
            raise fault_of(self._door.url, told.status, told.body)
        event = self._read(told.body)
        around = event.tokens[:start], event.tokens[end:]
        if held and (around != (before, list(then)) or len(event.tokens) < end):
            raise departed("is another one, and its stream has left ids out")
        event.tokens = event.tokens[start:end]
        event.completion_probabilities = event.completion_probabilities[start:end]
        return event


def body_of(generation: Generation, answer: list[int], left: int, context: int) -> dict[str, Any]:
    """The request for `left` tokens after prompt and answer."""
    sampling = generation.sampling
    body: dict[str, Any] = {
        "prompt": [*generation.prompt_ids, *answer],
        "n_predict": left,
        "stream": True,
        "return_tokens": True,
        "return_progress": True,
        "cache_prompt": True,
        "response_fields": _FIELDS,
        "seed": derived_seed(generation.seed, len(answer)) % SEEDS,
        "samplers": _ORDER,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
    }
    bias = _bias(generation, answer)
    if bias:
        body["logit_bias"] = [[id, by] for id, by in bias.items()]
    if sampling.presence_penalty or sampling.frequency_penalty:
        body["presence_penalty"] = sampling.presence_penalty
        body["frequency_penalty"] = sampling.frequency_penalty
        body["repeat_last_n"] = context or len(body["prompt"]) + left
    if sampling.logprobs >= 0:
        body["n_probs"] = max(sampling.logprobs, 1)
    if sampling.grammar:
        body["grammar"] = GRAMMAR + plain(sampling.grammar)
    return body


def _bias(generation: Generation, answer: list[int]) -> dict[int, float]:
    """The request's own, and what penalties will take from tokens because the prompt holds them."""
    sampling: Sampling = generation.sampling
    bias: dict[int, float] = {}
    for id, by in sampling.logit_bias:
        bias[id] = bias.get(id, 0.0) + by
    presence, frequency = sampling.presence_penalty, sampling.frequency_penalty
    if presence or frequency:
        said = set(answer)
        for id, count in Counter(generation.prompt_ids).items():
            bias[id] = bias.get(id, 0.0) + frequency * count + (0.0 if id in said else presence)
    return bias


def _logprobs(answer: Answer, event: _Event) -> list[TokenLogprob]:
    count = answer.asked.sampling.logprobs
    if count < 0:
        return []
    return [
        TokenLogprob(
            told.id, finite(told.logprob), tuple((one.id, finite(one.logprob)) for one in told.top_logprobs[:count])
        )
        for told in event.completion_probabilities
    ]
