"""The bound on thinking: once an answer has reasoned for so many tokens, it is told that it has thought enough.

It stands above failover and below the record: what is put into the answer here is in the transcript like any other token, so it
survives the replica, and is in the journal, so it survives the worker. The attempt is closed, and the answer goes on from a
transcript that ends with the mark of the end of thinking, as the model would have written it. The mark comes in one chunk with
the last token of reasoning, so that nobody who takes over finds it half there.

Only answers that begin inside the reasoning are looked at: that is how every thinking generation of DeepSeek begins. All others,
and all while thinking is not bounded, pass by without cost.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from msgspec import structs

from holdfast.domain.dialect import ThinkingEnd
from holdfast.domain.release import Release
from holdfast.domain.request import Chunk, Finish, Generation, TokenLogprob
from holdfast.gateway.service import Layer, Service

EndOf = Callable[[list[int]], ThinkingEnd | None]
Making = Callable[[str], Release | None]


class Thought:
    """How far one answer's reasoning is. `left`: tokens that it may still have; None once it has ended."""

    def __init__(self, generation: Generation, end: ThinkingEnd) -> None:
        self.generation, self.end = generation, end
        self.had = list(generation.delivered_ids)
        self.left: int | None = max(0, generation.thinking_max - len(self.had))
        if end.mark in self.had:
            self.left = None

    def is_over(self, chunk: Chunk) -> bool:
        """Take a chunk in. True when the bound is reached in it, wherever the engine has cut its tokens into chunks."""
        left, ids = self.left, chunk.ids
        if left is None or not ids:
            return False
        if self.end.mark in ids[:left]:
            self.left = None
            return False
        if len(ids) >= left:
            return True
        self.had += ids
        self.left = left - len(ids)
        return False

    def last(self, chunk: Chunk) -> Chunk:
        """The chunk with which thinking ends: what may still be said of `chunk`, then the mark.

        It ends the whole answer when there is no room for anything after it.
        """
        asked, kept = self.generation, chunk.ids[: self.left or 0]
        forced = self.end.ids[: asked.max_tokens - len(self.had) - len(kept)]
        rows = None
        if asked.sampling.logprobs >= 0:  # one row a token; those that were not drawn were certain
            rows = [*(chunk.logprobs or ())[: len(kept)], *(TokenLogprob(one, 0.0, ()) for one in forced)]
        ids = [*kept, *forced]
        self.had += ids
        self.left = None
        finish = Finish.LENGTH if len(self.had) >= asked.max_tokens else None
        return Chunk(ids, finish, rows, chunk.cached_tokens, moves=chunk.moves)


def think(end_of: EndOf, making: Making = lambda generation: None) -> Layer:
    """Bring reasoning to an end after `thinking_max` tokens. `end_of`: how thinking ends in the answer to a prompt.

    `making`: what makes an answer now, by its id; what comes after the mark is made there too.
    """

    def layer(inner: Service) -> Service:
        async def bounded(thought: Thought) -> AsyncGenerator[Chunk, None]:
            asked, last = thought.generation, Chunk([])
            begun = asked.begun
            if thought.left:
                async with aclosing(inner(asked)) as chunks:
                    async for chunk in chunks:
                        last = chunk
                        if thought.is_over(chunk):
                            begun = begun or making(asked.id)
                            break
                        yield chunk
                    else:
                        return
            last = thought.last(last)
            yield last
            if last.finish is not None:
                return
            rest = structs.replace(
                asked, delivered_ids=thought.had, begun=begun, urgent=True
            )  # a client holds its beginning
            async with aclosing(inner(rest)) as chunks:
                async for chunk in chunks:
                    chunk.moves += last.moves
                    chunk.cached_tokens = 0  # told once, by the first attempt
                    yield chunk

        def service(generation: Generation) -> AsyncGenerator[Chunk, None]:
            if not generation.thinking_max:
                return inner(generation)
            end = end_of(generation.prompt_ids)
            thought = Thought(generation, end) if end is not None else None
            if thought is None or thought.left is None:
                return inner(generation)
            return bounded(thought)

        return service

    return layer
