"""What a request asks with: which model answers and whether it thinks, the prompt's ids, and the grammar of an answer with a form."""

from holdfast.domain.fault import BadRequest
from holdfast.gateway.needs import ModelCard, Needs
from holdfast.gateway.openai_tools import form_of, offered
from holdfast.gateway.openai_turns import turns
from holdfast.gateway.openai_wire import Ask
from holdfast.gateway.surface import Prompt

# DeepSeek's steps of effort, and the words of OpenAI's that mean them
EFFORTS = {
    "minimal": "low", "low": "low", "medium": "high", "high": "high", "xhigh": "high", "max": "max", "ultra": "max",
}  # fmt: skip


def thinks(ask: Ask, card: ModelCard) -> bool:
    """Whether the answer is to begin with reasoning: `thinking` decides, else `reasoning_effort`, else the model's name.

    Raises:
        BadRequest: no model of that name.
    """
    if ask.model == card.name:
        thinking = card.thinking_default
    else:
        aliases = dict(card.aliases)
        if ask.model not in aliases:
            names = ", ".join((card.name, *aliases))
            raise BadRequest(
                f"The model {ask.model!r} does not exist here; there is: {names}.", "model", "model_not_found"
            )
        thinking = aliases[ask.model]
    if ask.thinking is not None and ask.thinking.type != "auto":
        return ask.thinking.type == "enabled"
    if ask.reasoning_effort is not None:
        return ask.reasoning_effort != "none"
    return thinking


def prompts_of(ask: Ask, needs: Needs, card: ModelCard) -> list[Prompt]:
    """The messages as one prompt.

    Raises:
        BadRequest: they can't be expressed, leave no room for an answer, or the answer's form is none that can be forced.
    """
    thinking = thinks(ask, card)
    messages, tools, dialect = turns(ask), offered(ask), needs.dialect
    form = form_of(ask, tools) if tools or ask.response_format is not None else None
    room = card.context_tokens_max
    least = sum([len(message.content) + len(message.reasoning) for message in messages]) // dialect.token_bytes_max
    if least >= room:
        raise too_long(f"at least {least}", room)
    json_mode = form is not None and form.schema is not None
    effort = EFFORTS.get(ask.reasoning_effort or "", "") if thinking else ""
    ids = dialect.render(messages, tools, thinking, json_mode, effort)
    if len(ids) >= room:
        raise too_long(str(len(ids)), room)
    return [Prompt(ids, dialect.grammar(ids, form) if form is not None else "")]


def too_long(tokens: str, room: int, what: str = "messages") -> BadRequest:
    """A prompt that leaves no room for an answer."""
    why = f"The {what} makes {tokens} tokens, but the context holds {room}; shorten it."
    if what == "messages":
        why = f"The messages make {tokens} tokens, but the context holds {room}; shorten them."
    return BadRequest(why, what, "context_length_exceeded")
