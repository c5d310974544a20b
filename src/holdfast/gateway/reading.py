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

    __slots__ = ("_stops", "cached", "calls", "done", "finish", "logprobs", "moves", "parser", "stopped", "tokens")

    def __init__(self, order: Order) -> None:
        self.parser = order.parser
        self._stops = Stops(order.stops) if order.stops else None
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
        self.tokens += len(ids)
        self.moves = chunk.moves
        self.logprobs = chunk.logprobs
        if chunk.cached_tokens:
            self.cached = chunk.cached_tokens
        said = self.parser.feed(ids) if ids else NOTHING
        finish = chunk.finish
        if finish is not None:
            self.finish = finish
            self.done = True
            rest = self.parser.end()
            if rest.reasoning or rest.content or rest.calls:
                said = Said(said.reasoning + rest.reasoning, said.content + rest.content, said.calls + rest.calls)
        if self._stops is not None:
            said = self._stopped(said, self._stops)
        if said.calls:
            said = Said(said.reasoning, said.content, self._numbered(said.calls))
        return said

    def _stopped(self, said: Said, stops: Stops) -> Said:
        """Stop strings are looked for in the content only; calls after one are not made."""
        content = stops.feed(said.content) if said.content else ""
        if stops.hit:
            self.finish = Finish.STOP
            self.stopped = not self.done
            self.done = True
            return Said(said.reasoning, content)
        if self.done or said.calls:
            content += stops.end()
        return Said(said.reasoning, content, said.calls)

    def _numbered(self, calls: tuple[ToolCall, ...]) -> tuple[ToolCall, ...]:
        first = self.calls
        self.calls += len(calls)
        return tuple(ToolCall(call.name, call.arguments, f"call_{first + i}") for i, call in enumerate(calls))

    def finish_word(self) -> bytes:
        """finish_reason as OpenAI says it."""
        if self.finish is Finish.LENGTH:
            return b"length"
        return b"tool_calls" if self.calls else b"stop"
