"""The surfaces that are offered, and their paths. Another one is a line here."""

from holdfast.domain.fault import BadRequest
from holdfast.gateway.openai_wire import decode
from holdfast.gateway.order import GONE, Note
from holdfast.gateway.refusals import Refusal
from holdfast.gateway.surface import Surface
from holdfast.gateway.writing import ChatWriter


def as_it_is(said: Refusal) -> Refusal:
    """Error pages are made in OpenAI's shape."""
    return said


CHAT = Surface(
    name="chat",
    paths=(b"/v1/chat/completions", b"/chat/completions", b"/beta/chat/completions"),
    read=decode,
    writer=ChatWriter,
    refuse=as_it_is,
    choices=ChatWriter,
)
SURFACES = (CHAT,)
BY_PATH = {path: surface for surface in SURFACES for path in surface.paths}
_BY_NAME = {surface.name: surface for surface in SURFACES}


def surface_of(note: Note) -> Surface:
    """Whose shape a kept answer has.

    Raises:
        BadRequest: it was begun by a version that offers one more, or is one of several choices.
    """
    if note.choices > 1:
        raise BadRequest("An answer of several choices is not kept; ask anew.", code=GONE)
    surface = _BY_NAME.get(note.surface)
    if surface is None:
        raise BadRequest("This answer was begun by another version of Holdfast; ask again.", code=GONE)
    return surface
