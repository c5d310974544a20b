"""From a request's body to what is owed: the Generation, and how its answer is to be written."""

from holdfast.domain.fault import BadRequest
from holdfast.domain.request import Generation, Sampling
from holdfast.gateway.asker import Asker
from holdfast.gateway.degrade import Cut
from holdfast.gateway.needs import ModelCard, Needs
from holdfast.gateway.openai_wire import Ask, offered, turns
from holdfast.gateway.order import Note, Order, write_note
from holdfast.gateway.surface import Surface

BIASES_MAX = 1024


def order_again(generation: Generation, note: Note, needs: Needs) -> Order:
    """The order that a kept generation came from."""
    card = ModelCard(name=note.model, digest=note.digest, exactness=note.exactness)
    parser = needs.dialect.parser(generation.prompt_ids)
    usage, created, degraded = note.include_usage, note.created, note.degraded
    return Order(generation, parser, card, note.model, note.stops, note.stream, usage, created, degraded, note.more)


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


def bias_of(ask: Ask, vocab_size: int) -> tuple[tuple[int, float], ...]:
    """logit_bias as pairs.

    Raises:
        BadRequest: too many of them, or a key that is not a token id of this model.
    """
    given = ask.logit_bias or {}
    if len(given) > BIASES_MAX:
        raise BadRequest(f"logit_bias has {len(given)} entries; send at most {BIASES_MAX}.", "logit_bias")
    for word in given:
        if not (word.isascii() and word.isdigit() and len(word) < 10 and int(word) < vocab_size):
            raise BadRequest(
                f"logit_bias maps token ids, 0 to {vocab_size - 1}, to weights; {word!r} is none.", "logit_bias"
            )
    return tuple((int(word), weight) for word, weight in given.items())


def sampling(ask: Ask, vocab_size: int) -> Sampling:
    """How tokens are chosen. Raises BadRequest."""
    return Sampling(
        1.0 if ask.temperature is None else ask.temperature,
        1.0 if ask.top_p is None else ask.top_p,
        max(ask.top_k or 0, 0),
        ask.min_p or 0.0,
        ask.presence_penalty or 0.0,
        ask.frequency_penalty or 0.0,
        bias_of(ask, vocab_size) if ask.logit_bias else (),
        (ask.top_logprobs or 0) if ask.logprobs else -1,
        bool(ask.ignore_eos),
    )


def seed_of(ask: Ask, needs: Needs) -> int:
    """The client's seed as an unsigned 63-bit number, or one drawn that a JSON client can send back (53 bits)."""
    if ask.seed is None:
        return needs.bits(53)
    return ask.seed & 0x7FFF_FFFF_FFFF_FFFF


def prompt_of(ask: Ask, needs: Needs, card: ModelCard) -> list[int]:
    """The prompt's ids.

    Raises:
        BadRequest: it can't be expressed, or leaves no room for an answer.
    """
    thinking = thinks(ask, card)
    messages = turns(ask)
    room = card.context_tokens_max
    least = sum(len(message.content) for message in messages) // needs.dialect.token_bytes_max
    if least >= room:
        raise _too_long(f"at least {least}", room)
    json_mode = ask.response_format is not None and ask.response_format.type == "json_object"
    ids = needs.dialect.render(messages, offered(ask), thinking, json_mode)
    if len(ids) >= room:
        raise _too_long(str(len(ids)), room)
    return ids


def _too_long(tokens: str, room: int) -> BadRequest:
    why = f"The messages make {tokens} tokens, but the context holds {room}; shorten them."
    return BadRequest(why, "messages", "context_length_exceeded")


def order(ask: Ask, prompt_ids: list[int], asker: Asker, needs: Needs, surface: Surface) -> Order:
    """Put everything together; draws the seed and the id."""
    card = needs.card()
    wanted = ask.max_completion_tokens or ask.max_tokens or card.max_tokens_default
    stop = ask.stop
    stops = () if not stop else (stop,) if isinstance(stop, str) else tuple(s for s in stop if s)
    dialect, options, created = needs.dialect, ask.stream_options, int(needs.unix_s())
    stream, include_usage = bool(ask.stream), options is not None and bool(options.include_usage)
    model = needs.stands_in or ask.model
    cut = cut_of(min(wanted, card.context_tokens_max - len(prompt_ids)), prompt_ids, asker, needs)
    more = surface.keep(ask) if surface.keep is not None else b""
    note = Note(
        model, stops, stream, include_usage, created, card.digest, card.exactness, asker.body_digest, cut.words,
        surface.name, more,
    )  # fmt: skip
    generation = Generation(
        id=f"{needs.bits(96):024x}",
        prompt_ids=prompt_ids,
        sampling=sampling(ask, dialect.vocab_size),
        max_tokens=cut.max_tokens,
        thinking_max=cut.thinking_max,
        seed=seed_of(ask, needs),
        stop_ids=() if ask.ignore_eos else dialect.stop_ids,
        deadline=needs.clock.now() + asker.deadline_s,
        key=asker.key,
        tenant=asker.tenant,
        priority=asker.priority or 0,
        client=asker.client,
        session=asker.session,
        body_bytes=asker.body_bytes,
        whole=not stream,
        idempotency=asker.idempotency,
        note=write_note(note),
    )
    return Order(
        generation, dialect.parser(prompt_ids), card, model, stops, stream, include_usage, created, cut.words, more
    )  # fmt: skip


def cut_of(max_tokens: int, prompt_ids: list[int], asker: Asker, needs: Needs) -> Cut:
    """How long the answer may be, as the ladder stands."""
    degrader = needs.degrader
    if degrader is None or not degrader.rung or asker.never_degrade:
        return Cut(max_tokens)
    return degrader.cut(max_tokens, needs.dialect.thinking_end(prompt_ids) is not None, needs.stands_in)
