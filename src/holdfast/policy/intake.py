"""Checks an attempt before it may wait, or is sent to an engine: what can never run is refused at once, with the field's name."""

import math

from holdfast.domain.fault import BadRequest
from holdfast.domain.ports import Work
from holdfast.domain.request import Finish, Generation, Sampling

LOGPROBS_MAX = 64
_UNKNOWN = 1 << 31
_BIAS_MAX = 100.0  # OpenAI's range
_PENALTY_MAX = 2.0


def check(work: Work | Generation, vocab_size: int, context_tokens_max: int) -> None:
    """Raises BadRequest, naming the field, for an attempt that this engine could never run. 0: a bound that is not known."""
    vocab_size, context_tokens_max = vocab_size or _UNKNOWN, context_tokens_max or _UNKNOWN
    if not work.prompt_ids:
        raise BadRequest("prompt_ids is empty: send at least one token", "prompt_ids")
    for name, ids in (("prompt_ids", work.prompt_ids), ("delivered_ids", work.delivered_ids)):
        if ids and not (min(ids) >= 0 and max(ids) < vocab_size):
            wrong = next(token for token in ids if not 0 <= token < vocab_size)
            raise BadRequest(f"token id {wrong} in {name} is outside the vocabulary of {vocab_size}", name)
    if len(work.prompt_ids) >= context_tokens_max:
        raise BadRequest(
            f"a prompt of {len(work.prompt_ids)} tokens leaves no room in a context of {context_tokens_max}",
            "prompt_ids",
            "context_length_exceeded",
        )
    if work.max_tokens < 1:
        raise BadRequest(f"max_tokens is {work.max_tokens}: ask for at least one token", "max_tokens")
    _check_sampling(work.sampling, vocab_size)


def _check_sampling(sampling: Sampling, vocab_size: int) -> None:
    bounds = (
        ("temperature", sampling.temperature, 0.0, 100.0),
        ("top_p", sampling.top_p, 0.0, 1.0),
        ("min_p", sampling.min_p, 0.0, 1.0),
        ("presence_penalty", sampling.presence_penalty, -_PENALTY_MAX, _PENALTY_MAX),
        ("frequency_penalty", sampling.frequency_penalty, -_PENALTY_MAX, _PENALTY_MAX),
        ("top_k", sampling.top_k, 0, math.inf),
        ("logprobs", sampling.logprobs, -1, LOGPROBS_MAX),
    )
    for name, value, low, high in bounds:
        if not low <= value <= high:
            raise BadRequest(f"{name} is {value}; it must lie between {low:g} and {high:g}", name)
    for token, bias in sampling.logit_bias:
        if not 0 <= token < vocab_size:
            raise BadRequest(f"logit_bias names token {token}, outside the vocabulary of {vocab_size}", "logit_bias")
        if not -_BIAS_MAX <= bias <= _BIAS_MAX:
            raise BadRequest(f"logit_bias of token {token} is {bias}; it must lie between -100 and 100", "logit_bias")


def finish_before(work: Work | Generation, context_tokens_max: int) -> Finish | None:
    """The finish of an answer that was complete when the attempt came: only its end was lost on the way."""
    return finish_after(work, len(work.delivered_ids), context_tokens_max)


def finish_after(work: Work | Generation, answer_tokens: int, context_tokens_max: int) -> Finish | None:
    """LENGTH where an answer of so many tokens has no room left."""
    full = len(work.prompt_ids) + answer_tokens >= context_tokens_max
    return Finish.LENGTH if answer_tokens >= work.max_tokens or full else None


def rest_tokens(work: Work | Generation, context_tokens_max: int) -> int:
    """How many tokens may still be made, by max_tokens and by the room in the context; 0 where the answer is complete."""
    taken, rest = len(work.delivered_ids), work.max_tokens - len(work.delivered_ids)
    room = (context_tokens_max or _UNKNOWN) - len(work.prompt_ids) - taken
    return max(0, min(rest, room))
