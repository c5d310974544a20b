"""What is checked before an engine is asked: requests that no replica could serve, and answers that were complete already."""

from holdfast.domain.fault import BadRequest
from holdfast.domain.request import Generation


def room(generation: Generation, vocab_size: int, context_tokens_max: int) -> int:
    """How many tokens the answer may still get, by its max_tokens and the context; 0: it is complete. Bounds of 0 are not known.

    Raises:
        BadRequest: no prompt, an id outside the vocabulary, a prompt that fills the context, or no token asked for.
    """
    prompt, delivered = generation.prompt_ids, generation.delivered_ids
    if not prompt:
        raise BadRequest("prompt_ids is empty: send at least one token", "prompt_ids")
    for name, ids in (("prompt_ids", prompt), ("delivered_ids", delivered)):
        if ids and (min(ids) < 0 or (vocab_size and max(ids) >= vocab_size)):
            wrong = next(id for id in ids if id < 0 or id >= vocab_size)
            raise BadRequest(f"token id {wrong} in {name} is outside the vocabulary of {vocab_size}", name)
    if context_tokens_max and len(prompt) >= context_tokens_max:
        raise BadRequest(
            f"a prompt of {len(prompt)} tokens leaves no room in a context of {context_tokens_max}",
            "prompt_ids",
            "context_length_exceeded",
        )
    if generation.max_tokens < 1:
        raise BadRequest(f"max_tokens is {generation.max_tokens}: ask for at least one token", "max_tokens")
    left = generation.max_tokens - len(delivered)
    if context_tokens_max:
        left = min(left, context_tokens_max - len(prompt) - len(delivered))
    return max(left, 0)
