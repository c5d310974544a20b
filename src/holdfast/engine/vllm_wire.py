"""vLLM's words: the request that continues an answer through its completions endpoint, and what comes back.

What it was written from: vLLM 0.32 and 0.33, entrypoints/openai/completion. Where their ways differ from ours:

- The stop token is among the ids, and `stop_reason` names it; ours is not. EOS is sent as a stop id like any other, and vLLM's
  own notion of it turned off, so that an answer stops at what the request says and nowhere else.
- Every sampling parameter is sent, since vLLM takes the model folder's generation_config for those that are not.
- A carried-on answer begins as prompt there, which penalties don't count. They are made up for by a bias on what was delivered:
  exact for the frequency penalty; the presence penalty counts twice for a token that comes again after the cut.
"""

from collections import Counter
from typing import Any

import msgspec
from msgspec import Struct

from holdfast.domain.fault import BadRequest, EngineLost
from holdfast.domain.request import Finish, Generation, Sampling, TokenLogprob
from holdfast.engine.serving import Serving
from holdfast.policy.continuation import derived_seed

TOP_P_MIN = 1e-9  # it refuses 0, which keeps the likeliest alone
BIAS_MAX = 100.0
URGENT = 1000  # bands of priority by which an answer that somebody holds the beginning of goes ahead
BAD_CODES = (400, 422)
CORE_DEAD = "EngineCore encountered an issue"  # EngineDeadError; its API process lives on for some seconds
_ID_MARK = "token_id:"  # how it writes a token where it is asked to write ids


class _Logprobs(Struct):
    tokens: list[str] = []
    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float] | None] = []


class Choice(Struct):
    """One event's share of the one answer. `finish_reason`: stop, length, abort, error, repetition."""

    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    logprobs: _Logprobs | None = None


class _Details(Struct):
    cached_tokens: int | None = None


class Usage(Struct):
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None

    @property
    def cached_tokens(self) -> int:
        """0 where it does not tell, as without --enable-prompt-tokens-details."""
        return (self.prompt_tokens_details.cached_tokens or 0) if self.prompt_tokens_details else 0


class _Error(Struct):
    message: str = ""
    param: str | None = None
    code: int | str | None = None


class Event(Struct):
    """An event of a stream, and a whole answer too."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: _Error | None = None


_EVENT = msgspec.json.Decoder(Event)


def request(generation: Generation, serving: Serving, tokens: int) -> bytes:
    """The body of POST /v1/completions for up to `tokens` more ids after those that were delivered."""
    asked: dict[str, Any] = {
        "model": serving.served_as or serving.model,
        "prompt": [*generation.prompt_ids, *generation.delivered_ids],
        "max_tokens": tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
        "skip_special_tokens": False,
        "ignore_eos": True,
        "stop_token_ids": _stops(generation, serving),
        **sampled(generation.sampling),
    }
    if generation.sampling.temperature > 0:
        asked["seed"] = derived_seed(generation.seed, len(generation.delivered_ids))
    bias = biases(generation)
    if bias:
        asked["logit_bias"] = bias
    if generation.sampling.grammar:
        asked["structured_outputs"] = {"grammar": generation.sampling.grammar}
    if serving.priority:  # there the lowest goes first
        asked["priority"] = -generation.priority - (URGENT if generation.urgent else 0)
    return msgspec.json.encode(asked)


def sampled(sampling: Sampling) -> dict[str, Any]:
    """How the next token is chosen, every parameter by name."""
    said: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": max(sampling.top_p, TOP_P_MIN),
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repetition_penalty": 1.0,
    }
    if sampling.logprobs >= 0:
        said["logprobs"] = sampling.logprobs
    return said


def biases(generation: Generation) -> dict[str, float]:
    """The request's own biases, and what penalties owe for the delivered ids."""
    sampling = generation.sampling
    found = {id: bias for id, bias in sampling.logit_bias}
    if sampling.presence_penalty or sampling.frequency_penalty:
        for id, times in Counter(generation.delivered_ids).items():
            owed = sampling.presence_penalty + times * sampling.frequency_penalty
            found[id] = found.get(id, 0.0) - owed
    return {str(id): max(-BIAS_MAX, min(BIAS_MAX, bias)) for id, bias in found.items()}


def _stops(generation: Generation, serving: Serving) -> list[int]:
    if generation.sampling.ignore_eos:
        return [id for id in generation.stop_ids if id not in serving.eos_ids]
    return list(generation.stop_ids)


def event_of(data: bytes, where: str) -> Event:
    """One event, read. After an error told in the stream a `[DONE]` follows that means nothing.

    Raises:
        EngineLost: what is no event of theirs; an error. `died` where it says that its core process is gone.
        BadRequest: an error of the request's own: a grammar is only read once the stream has begun.
    """
    try:
        event = _EVENT.decode(data)
    except msgspec.DecodeError as error:  # a ValidationError is one
        raise EngineLost(f"{where} sent garbage into a stream: {error}") from error
    if event.error is not None:
        said = event.error.message or f"error {event.error.code}"
        if event.error.code in BAD_CODES:
            raise BadRequest(f"{where} refuses the request: {said}", event.error.param).saying(said)
        died = said.startswith(CORE_DEAD)
        raise EngineLost(f"{where} failed in the midst of an answer: {said}", died=died).saying(said)
    return event


def ids_of(choice: Choice, stop_ids: tuple[int, ...], where: str) -> tuple[list[int], Finish | None]:
    """The ids without the stop id, and the finish.

    Raises:
        EngineLost: no ids are told, or it ended for a reason that is no end of an answer.
    """
    ids = choice.token_ids
    if ids is None:
        raise EngineLost(f"{where} tells text without its ids: return_token_ids is unknown to this build")
    reason = choice.finish_reason
    if reason is None:
        return ids, None
    if reason == "length":
        return ids, Finish.LENGTH
    if reason != "stop":
        raise EngineLost(f"{where} ended an answer with {reason!r}, which completes nothing")
    if ids and (ids[-1] == choice.stop_reason or ids[-1] in stop_ids):
        ids = ids[:-1]
    return ids, Finish.STOP


def logprobs_of(choice: Choice, count: int, likeliest: int) -> list[TokenLogprob] | None:
    """For the first `count` ids, which must be as many as were asked for; the stop id has one there and none here.

    They are vLLM's raw ones: before penalties and bias, unless it was started with --logprobs-mode processed_logprobs.
    """
    told = choice.logprobs
    if told is None or len(told.tokens) < count or len(told.token_logprobs) < count:
        return None
    found = []
    tops = told.top_logprobs or [None] * count
    for token, logprob, top in zip(told.tokens[:count], told.token_logprobs, tops, strict=False):
        pairs = [(_id(word), value) for word, value in (top or {}).items()]
        ranked = sorted(pairs, key=lambda pair: -pair[1])[:likeliest]
        found.append(TokenLogprob(_id(token), 0.0 if logprob is None else logprob, tuple(ranked)))
    return found


def _id(word: str) -> int:
    number = word.removeprefix(_ID_MARK)
    return int(number) if number.isdecimal() else -1
