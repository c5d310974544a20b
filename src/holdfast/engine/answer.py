"""One answer as far as it has come, over all requests that an engine needs for it.

Engines end an answer where they like: at a token that ends texts for the model, asked or not, at a bound of their own. Here is
decided when it is over for us: at one of its stop ids, which is not part of it, or when its room is used up. Until then it is
asked on.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Self

from holdfast.domain.fault import EngineLost
from holdfast.domain.request import Chunk, Finish, Generation, TokenLogprob
from holdfast.engine.serving import Serving
from holdfast.policy.intake import check, rest_tokens

LOWEST = -1e4  # for minus infinity, which is no number of JSON


class Answer:
    """`left` is how many tokens may still come; `cached` what the engine told of its prompt cache."""

    def __init__(self, generation: Generation, left: int) -> None:
        self.asked = generation
        self.ids = list(generation.delivered_ids)
        self.left = left
        self.over = False
        self.cached = 0
        self._told_cached = False

    @classmethod
    def to(cls, generation: Generation, serving: Serving) -> Self:
        """With all the room that there is. Raises BadRequest for what could never run (policy/intake.py)."""
        check(generation, serving.vocab_size, serving.context_tokens_max)
        return cls(generation, rest_tokens(generation, serving.context_tokens_max))

    def take(self, ids: list[int], logprobs: Sequence[TokenLogprob] = ()) -> Chunk:
        """What of it is new, up to a stop or the end of the room. `logprobs` go with the ids, one each, or are left out."""
        stops, kept, finish = self.asked.stop_ids, ids[: self.left], None
        for place, id in enumerate(kept):
            if id in stops:
                kept, finish = kept[:place], Finish.STOP
                break
        self.ids += kept
        self.left -= len(kept)
        if finish is None and self.left <= 0:
            finish = Finish.LENGTH
        self.over = finish is not None
        chunk = Chunk(kept, finish)
        if self.asked.sampling.logprobs >= 0 and kept:
            chunk.logprobs = list(logprobs[: len(kept)])
        if kept and not self._told_cached:
            self._told_cached = True
            chunk.cached_tokens = min(self.cached, len(self.asked.prompt_ids))
        return chunk

    def end(self, finish: Finish) -> Chunk:
        """It is over without another token."""
        self.over = True
        return Chunk([], finish)


async def until_over(
    answer: Answer, once: Callable[[Answer], AsyncGenerator[Chunk, None]], where: str
) -> AsyncGenerator[Chunk, None]:
    """The answer, by as many requests as it needs. `once` makes one, to its end; `where` names the engine in faults.

    Raises:
        EngineLost: a request brought neither a token nor a finish.
        Whatever `once` raises.
    """
    if answer.left == 0:
        yield answer.end(Finish.LENGTH)
        return
    while not answer.over:
        before = len(answer.ids)
        chunks = once(answer)
        try:
            async for chunk in chunks:
                yield chunk
                if chunk.finish is not None:
                    return
        finally:
            await chunks.aclose()
        if len(answer.ids) == before:
            raise EngineLost(f"{where} ended an answer without a token and without a reason")


def finite(logprob: float | None) -> float:
    """Minus infinity is no number of JSON: engines write null, or their lowest float."""
    return LOWEST if logprob is None else max(logprob, LOWEST)
