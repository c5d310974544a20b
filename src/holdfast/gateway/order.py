"""One accepted request, and what is kept of it so that any worker can go on writing its answer.

How a body becomes one is in gateway/ordering.py.
"""

import msgspec
from msgspec import Struct

from holdfast.domain.dialect import Parser
from holdfast.domain.fault import BadRequest
from holdfast.domain.release import Exactness
from holdfast.domain.request import Generation
from holdfast.gateway.needs import ModelCard

GONE = "stream_not_found"


class Order(Struct):
    """One accepted request."""

    generation: Generation
    parser: Parser
    card: ModelCard
    model: str  # as the client called it
    stops: tuple[str, ...]
    stream: bool
    include_usage: bool
    created: int
    promise: str = ""  # how well it can be continued, as a header says it
    degraded: str = ""  # what was given up, likewise
    more: bytes = b""  # what its surface has kept of the request, for its writer
    live: bool = False  # calls are written as they come, and not once they are whole
    index: int = 0  # of several choices
    name: str = ""  # the answer's, where it has several; else it is the generation's id


class Note(Struct, frozen=True, array_like=True):
    """How an answer is written, so that another worker can go on: what an Order holds beside the generation."""

    model: str
    stops: tuple[str, ...]
    stream: bool
    include_usage: bool
    created: int
    digest: str  # of the release
    exactness: Exactness
    body_digest: bytes
    degraded: str = ""
    surface: str = "chat"  # whose shape it has
    more: bytes = b""
    live: bool = False
    choices: int = 1
    promise: str = ""  # see Order; notes of before it had only `exactness` to tell it from


write_note = msgspec.msgpack.Encoder().encode
_read_note = msgspec.msgpack.Decoder(Note).decode


def read_note(generation: Generation) -> Note:
    """The note that travels with a generation.

    Raises:
        BadRequest: it was written by a version that we don't understand.
    """
    try:
        return _read_note(generation.note)
    except msgspec.MsgspecError:
        raise BadRequest("This answer was begun by another version of Holdfast; ask again.", code=GONE) from None
