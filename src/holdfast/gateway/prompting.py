"""What a request asks with: whether the model is to think, the prompt's ids, and the grammar of an answer that has a form."""

import re

from msgspec import structs

from holdfast.domain.dialect import Dialect, Form
from holdfast.domain.fault import BadRequest
from holdfast.domain.release import Hold
from holdfast.gateway.needs import ModelCard, Needs
from holdfast.gateway.openai_tools import form_of, loosened, offered, strict_ones
from holdfast.gateway.openai_turns import turns
from holdfast.gateway.openai_wire import Ask
from holdfast.gateway.surface import Prompt

_TOOL = re.compile(r"tools\[(\d+)\]")
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
    grammar = _grammar(ask, ids, form, dialect) if form is not None else ""
    if grammar and form is not None:
        _look_for_holders(ask, form, card)
    return [Prompt(ids, grammar)]


def _look_for_holders(ask: Ask, form: Form, card: ModelCard) -> None:
    """Raise BadRequest if no engine of this site can hold an answer to a grammar."""
    if not card.kinds or any(one.grammar is not Hold.NONE for one in card.kinds):
        return
    where, what = "tool_choice", "tool_choice asks for a call"
    if form.schema is not None:
        where, what = "response_format", "response_format asks for JSON"
    elif form.free:
        strict = strict_ones(ask)
        place = next((i for i, tool in enumerate(ask.tools or ()) if tool.function.name in strict), 0)
        where, what = f"tools[{place}].function.strict", "a strict tool asks for arguments of a form"
    engines = " and ".join(dict.fromkeys(one.engine for one in card.kinds))
    raise BadRequest(f"{what}, but engine {engines} here can't hold an answer to a grammar; leave it out.", where)


def _grammar(ask: Ask, ids: list[int], form: Form, dialect: Dialect) -> str:
    """The form's grammar. What a tool that is not strict takes is held to its parameters as far as a grammar can."""
    loose = structs.replace(form, tools=loosened(ask, list(form.tools)))
    try:
        return dialect.grammar(ids, form)
    except BadRequest as error:
        if loose == form:
            raise _renumbered(error, ask, form) from None
    try:
        return dialect.grammar(ids, loose)
    except BadRequest as error:
        raise _renumbered(error, ask, loose) from None


def _renumbered(error: BadRequest, ask: Ask, form: Form) -> BadRequest:
    """The same, where a form of some of the tools counts them otherwise than the request does."""
    found = _TOOL.match(error.param or "")
    if found is None or error.param is None:
        return error
    name = form.tools[int(found[1])].name
    place = next(i for i, tool in enumerate(ask.tools or ()) if tool.function.name == name)
    here, there = found[0], f"tools[{place}]"
    return BadRequest(error.why.replace(here, there), error.param.replace(here, there), error.code)


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
