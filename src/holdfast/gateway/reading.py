"""One answer as it is read: ids become text, stop strings are looked for, tokens are counted.

All of it stands above failover, so it survives a move: the ids on both sides of the seam go through one parser.
"""

from holdfast.domain.dialect import Said, ToolCall
from holdfast.domain.request import Chunk, Finish, TokenLogprob
from holdfast.gateway.order import Order
from holdfast.gateway.stops import Stops

NOTHING = Said()


class Reading:
    """State of one answer. After `done` nothing more is to be taken; `stopped` says that the engine has not ended it."""

    __slots__ = (
        "_stops", "before", "cached", "calls", "done", "finish", "logprobs", "moves", "parser", "stopped", "tokens",
    )  # fmt: skip

    def __init__(self, order: Order) -> None:
        self.parser = order.parser
        self._stops = Stops(order.stops) if order.stops else None
        self.before = 0  # tokens before the last chunk
        self.tokens = 0
        self.cached = 0
        self.moves = 0
        self.calls = 0
        self.finish: Finish | None = None
        self.logprobs: list[TokenLogprob] | None = None
        self.done = False
        self.stopped = False

    def take(self, chunk: Chunk) -> Said:
        """What the chunk says to the client. Sets `done` at the engine's finish or at a stop string."""
        ids = chunk.ids
        self.before = self.tokens
        self.moves = chunk.moves
        self.logprobs = chunk.logprobs
        if chunk.cached_tokens:
            self.cached = chunk.cached_tokens
        said = NOTHING
        if self._stops is not None and (len(ids) > 1 or (ids and chunk.finish is not None)):
            said = self._one_by_one(ids, self._stops)
            if self.done:
                return said
            ids = []
        self.tokens += len(ids)
        fed = self.parser.feed(ids) if ids else NOTHING
        finish = chunk.finish
        if finish is not None:
            self.finish = finish
            self.done = True
            rest = self.parser.end()
            if rest.reasoning or rest.content or rest.calls or rest.parts:
                fed = joined(fed, rest)
        if self._stops is not None:
            fed = self._stopped(fed, self._stops)
        if fed.calls:
            fed = Said(fed.reasoning, fed.content, self._numbered(fed.calls), fed.parts)
        return fed if said is NOTHING else joined(said, fed)

    def _one_by_one(self, ids: list[int], stops: Stops) -> Said:
        """A chunk of several tokens, where it matters at which of them a stop string is complete: later ones do not count."""
        said = NOTHING
        for count, token in enumerate(ids, 1):
            self.tokens += 1
            one = self._stopped(self.parser.feed([token]), stops)
            if one.calls:
                one = Said(one.reasoning, one.content, self._numbered(one.calls), one.parts)
            said = joined(said, one)
            if self.done:
                if self.logprobs is not None:
                    self.logprobs = self.logprobs[:count]
                break
        return said

    def _stopped(self, said: Said, stops: Stops) -> Said:
        """Stop strings are looked for in the content only; calls after one are not made."""
        content = stops.feed(said.content) if said.content else ""
        if stops.hit:
            self.finish = Finish.STOP
            self.stopped = not self.done
            self.done = True
            return Said(said.reasoning, content)
        if self.done or said.calls or said.parts:
            content += stops.end()
        return Said(said.reasoning, content, said.calls, said.parts)

    def _numbered(self, calls: tuple[ToolCall, ...]) -> tuple[ToolCall, ...]:
        first = self.calls
        self.calls += len(calls)
        return tuple(ToolCall(call.name, call.arguments, f"call_{first + i}") for i, call in enumerate(calls))

    @property
    def stop(self) -> str:
        """The stop string that ended it; empty when none did."""
        return self._stops.which if self._stops is not None else ""

    def finish_word(self) -> bytes:
        """finish_reason as OpenAI says it."""
        if self.finish is Finish.LENGTH:
            return b"length"
        return b"tool_calls" if self.calls else b"stop"


def joined(one: Said, other: Said) -> Said:
    """Both, one after the other."""
    calls, parts = one.calls + other.calls, one.parts + other.parts
    return Said(one.reasoning + other.reasoning, one.content + other.content, calls, parts)
