"""The surfaces that are offered, and their paths. Another one is a line here."""

from holdfast.domain.fault import BadRequest
from holdfast.gateway import anthropic_wire, responses_wire
from holdfast.gateway.anthropic_events import AnthropicWriter, refuse
from holdfast.gateway.completion_wire import completion_prompts, decode_completion, keep_echo
from holdfast.gateway.completion_writing import CompletionWriter
from holdfast.gateway.openai_wire import decode
from holdfast.gateway.order import GONE, Note
from holdfast.gateway.plain import Plain
from holdfast.gateway.refusals import Refusal
from holdfast.gateway.responses_events import ResponsesWriter
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
COMPLETIONS = Surface(
    name="completions",
    paths=(b"/v1/completions", b"/completions", b"/beta/completions"),
    read=decode_completion,
    writer=CompletionWriter,
    refuse=as_it_is,
    keep=keep_echo,
    prompts=completion_prompts,
    parser=Plain,
    choices=CompletionWriter,
)
RESPONSES = Surface(
    name="responses",
    paths=(b"/v1/responses", b"/responses"),
    read=responses_wire.decode,
    writer=ResponsesWriter,
    refuse=as_it_is,
    keep=responses_wire.keep,
    prompts=responses_wire.prompts,
    singly=True,
)
ANTHROPIC = Surface(
    name="anthropic",
    paths=(b"/anthropic/v1/messages",),
    read=anthropic_wire.decode,
    writer=AnthropicWriter,
    refuse=refuse,
    prompts=anthropic_wire.prompts,
    singly=True,
)
SURFACES = (CHAT, COMPLETIONS, RESPONSES, ANTHROPIC)
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
