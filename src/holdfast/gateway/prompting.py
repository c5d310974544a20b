"""What a request asks with: whether the model is to think, the prompt's ids, and the grammar of an answer that has a form."""

from msgspec import structs

from holdfast.domain.dialect import Dialect, Form
from holdfast.domain.fault import BadRequest
from holdfast.gateway.needs import ModelCard, Needs
from holdfast.gateway.openai_tools import form_of, loosened, offered
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
    thinking, dialect, room = thinks(ask, card), needs.dialect, card.context_tokens_max
    messages, tools = turns(ask), offered(ask)
    form = form_of(ask, tools) if tools or ask.response_format is not None else None
    least = sum([len(message.content) + len(message.reasoning) for message in messages]) // dialect.token_bytes_max
    if least >= room:
        raise too_long(f"at least {least}", room)
    ids = dialect.render(messages, tools, thinking, _wants_json(form), effort_of(ask, thinking))
    if len(ids) >= room:
        raise too_long(str(len(ids)), room)
    return [Prompt(ids, _grammar(ask, ids, form, dialect) if form is not None else "")]


def _grammar(ask: Ask, ids: list[int], form: Form, dialect: Dialect) -> str:
    """The form's grammar. What a tool that is not strict takes is held to its parameters as far as a grammar can."""
    try:
        return dialect.grammar(ids, form)
    except BadRequest:
        loose = structs.replace(form, tools=loosened(ask, list(form.tools)))
        if loose == form:
            raise
        return dialect.grammar(ids, loose)


def rendered(ask: Ask, dialect: Dialect, card: ModelCard) -> list[int]:
    """The prompt's ids alone, however many they are. Raises BadRequest."""
    thinking, tools = thinks(ask, card), offered(ask)
    form = form_of(ask, tools)
    return dialect.render(turns(ask), tools, thinking, _wants_json(form), effort_of(ask, thinking))


def effort_of(ask: Ask, thinking: bool) -> str:
    """low, high or max; empty when it was left open."""
    return EFFORTS[ask.reasoning_effort] if thinking and ask.reasoning_effort in EFFORTS else ""


def _wants_json(form: Form | None) -> bool:
    return form is not None and form.schema is not None


def too_long(tokens: str, room: int, what: str = "messages") -> BadRequest:
    """A prompt that leaves no room for an answer."""
    why = f"The {what} makes {tokens} tokens, but the context holds {room}; shorten it."
    if what == "messages":
        why = f"The messages make {tokens} tokens, but the context holds {room}; shorten them."
    return BadRequest(why, what, "context_length_exceeded")
