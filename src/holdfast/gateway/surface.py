"""A surface: one API's shape. What its clients send is read into the chat request, and the one answer is written as they expect.

All else (who asks, limits, layers, journal, coming back for an answer) is the same for every surface and knows none of them;
the table of them is gateway/surfaces.py. Requests in another API's words are translated into an Ask; a surface that needs more
of a request than an Ask holds reads it into a struct of its own, derived from Ask.
"""

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from holdfast.domain.dialect import Dialect, Parser, Said
from holdfast.domain.request import Chunk
from holdfast.gateway.marks import Rest
from holdfast.gateway.needs import ModelCard, Needs
from holdfast.gateway.openai_wire import Ask
from holdfast.gateway.order import Order
from holdfast.gateway.reading import Reading
from holdfast.gateway.refusals import Refusal


class Writer(Protocol):
    """One answer in one API's shape, as server-sent events or whole.

    It is made anew in any worker from what the journal keeps, and then reads the answer from its start: what it remembers must
    follow from the ids alone. Each event that a client may come back with says so in an `id:` line (gateway/marks.py).
    """

    def begin(self) -> bytes:
        """The first events of a stream, before anything is said; empty when there are none."""
        ...

    def said(self, said: Said, reading: Reading) -> bytes:
        """Events for what a chunk said; empty when it said nothing yet."""
        ...

    def rest(self, rest: Rest, chunk: Chunk, reading: Reading) -> bytes:
        """The same for one who comes back: of what the chunk says only what its mark does not cover."""
        ...

    def last(self, reading: Reading, given: str = "") -> bytes:
        """The finish, the usage and the end mark. `given`: how much of that the mark covers (`Mark.ending`)."""
        ...

    def cut(self, said: Refusal) -> bytes:
        """How a stream that has begun ends with an error, which the surface has dressed already."""
        ...

    def whole(self, reading: Reading, said: Said, logprobs: bytes | None) -> bytes:
        """The body of an answer that is no stream. `logprobs`: as OpenAI's JSON, where they were asked for."""
        ...


class Prompt(Struct):
    """What one answer is asked with.

    grammar: what the whole of it must match (domain.request.Sampling). thinking_max: the most tokens of reasoning; 0: any.
    """

    ids: list[int]
    grammar: str = ""
    thinking_max: int = 0


class Usage(Struct, frozen=True):
    """What an answer has cost, over all of its choices."""

    prompt_tokens: int
    cached_tokens: int
    tokens: int
    reasoning_tokens: int
    moves: int


class ChoiceWriter(Protocol):
    """One of several choices of an answer. They are written into one stream, or into one body, as they come."""

    def begin(self) -> bytes: ...

    def said(self, said: Said, reading: Reading) -> bytes: ...

    def cut(self, said: Refusal) -> bytes: ...

    def finished(self, reading: Reading) -> bytes:
        """The event with which this choice ends."""
        ...

    def closing(self, usage: Usage) -> bytes:
        """What stands at the end of the stream, once all choices have ended."""
        ...

    def choice(self, reading: Reading, said: Said, logprobs: bytes | None) -> bytes:
        """This choice, as a whole."""
        ...

    def body(self, choices: list[bytes], usage: Usage) -> bytes:
        """The whole answer."""
        ...


class Surface(Struct, frozen=True):
    """One API.

    name: kept beside the answer, so that another worker writes on in the same shape. read: the body as the chat request,
    checked; raises BadRequest. writer: for one answer. refuse: an error page in this API's shape; it is given OpenAI's.
    keep: what the writer needs of the request beside what an Order has; it comes back as `Order.more`. prompts: what is asked,
    where that is not the messages; each is a choice of its own. parser: what reads the answer, where that is not the dialect's.
    choices: the writer of one of several choices; None where an answer has one only. singly: its writer takes tokens one by one.
    """

    name: str
    paths: tuple[bytes, ...]
    read: Callable[[bytes], Ask]
    writer: Callable[[Order, Dialect], Writer]
    refuse: Callable[[Refusal], Refusal]
    keep: Callable[[Ask], bytes] | None = None
    prompts: Callable[[Ask, Needs, ModelCard], list[Prompt]] | None = None
    parser: Callable[[Dialect, list[int]], Parser] | None = None
    choices: Callable[[Order, Dialect], ChoiceWriter] | None = None
    singly: bool = False
