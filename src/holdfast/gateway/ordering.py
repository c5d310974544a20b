"""From a request and its prompts to what is owed: Generations, and how their answers are to be written."""

from hashlib import blake2b

from msgspec import structs

from holdfast.domain.fault import BadRequest
from holdfast.domain.release import Hold, Release
from holdfast.domain.request import Generation, Sampling
from holdfast.gateway.asker import Asker
from holdfast.gateway.degrade import Cut
from holdfast.gateway.journal import digest_of_key
from holdfast.gateway.needs import ModelCard, Needs
from holdfast.gateway.openai_wire import CHOICES_MAX, Ask
from holdfast.gateway.order import Note, Order, read_note, write_note
from holdfast.gateway.surface import Prompt, Surface

BIASES_MAX = 1024


def orders(
    ask: Ask, prompts: list[Prompt], asker: Asker, needs: Needs, surface: Surface, *, card: ModelCard
) -> list[Order]:
    """What is owed: one answer, or one for each choice.

    Raises:
        BadRequest: more choices than may be.
    """
    if len(prompts) == 1 and (ask.n is None or ask.n == 1):
        return [order(ask, prompts[0], asker, needs, surface, card=card)]
    each = ask.n or 1
    count = each * len(prompts)
    if surface.choices is None:
        raise BadRequest(f"n is {count}, but there is one answer a request here; leave it out.", "n")
    if count > CHOICES_MAX:
        why = f"{len(prompts)} prompts with n={each} make {count} answers; ask for at most {CHOICES_MAX} at once."
        raise BadRequest(why, "n")
    made: list[Order] = []
    for prompt in prompts:
        for _ in range(each):
            one = order(ask, prompt, asker, needs, surface, card=card)
            first = made[0] if made else one
            made.append(_choice(one, first.generation, len(made), count))
    return made


def _choice(one: Order, first: Generation, index: int, count: int) -> Order:
    """One of several: its own id and seed below the first one's. They are not kept to be had again, under a key least of all."""
    note = structs.replace(read_note(one.generation), choices=count)
    seed = first.seed if not index else seed_below(first.seed, index)
    one.generation = structs.replace(one.generation, seed=seed, idempotency="", note=write_note(note))
    one.index, one.name = index, first.id
    return one


def seed_below(seed: int, index: int) -> int:
    """The seed of choice number `index`."""
    drawn = blake2b(index.to_bytes(2, "big"), digest_size=8, key=seed.to_bytes(8, "big")).digest()
    return int.from_bytes(drawn, "big") >> 1


def order_again(generation: Generation, note: Note, needs: Needs, surface: Surface) -> Order:
    """The order that a kept generation came from."""
    card = ModelCard(name=note.model, digest=note.digest)
    dialect, prompt_ids = needs.dialect, generation.prompt_ids
    parser = dialect.parser(prompt_ids) if surface.parser is None else surface.parser(dialect, prompt_ids)
    made = Order(generation, parser, card, note.model, note.stops, note.stream, note.include_usage, note.created)
    made.degraded, made.more, made.live = note.degraded, note.more, note.live
    before = Release(model=note.model, engine="", digest=note.digest, exactness=note.exactness)
    made.promise = note.promise or "; ".join(needs.contract(generation.sampling, (before,)))
    return made


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


def sampling(ask: Ask, vocab_size: int, grammar: str = "") -> Sampling:
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
        grammar,
    )


def seed_of(ask: Ask, needs: Needs) -> int:
    """The client's seed as an unsigned 63-bit number, or one drawn that a JSON client can send back (53 bits)."""
    if ask.seed is None:
        return needs.bits(53)
    return ask.seed & 0x7FFF_FFFF_FFFF_FFFF


def order(ask: Ask, prompt: Prompt, asker: Asker, needs: Needs, surface: Surface, *, card: ModelCard) -> Order:
    """Put everything together; draws the seed and the id."""
    dialect, prompt_ids = needs.dialect, prompt.ids
    wanted = ask.max_completion_tokens or ask.max_tokens or card.max_tokens_default
    stop = ask.stop
    stops = () if not stop else (stop,) if isinstance(stop, str) else tuple(s for s in stop if s)
    options, created = ask.stream_options, int(needs.unix_s())
    stream, include_usage = bool(ask.stream), options is not None and bool(options.include_usage)
    model, live = needs.stands_in or ask.model, ask.tool_stream == "live"
    cut = cut_of(min(wanted, card.context_tokens_max - len(prompt_ids)), prompt_ids, asker, needs)
    more = surface.keep(ask) if surface.keep is not None else b""
    sampled = sampling(ask, dialect.vocab_size, prompt.grammar)
    word, why = needs.contract(sampled, card.kinds)
    promise = f"{word}; {why}"
    note = Note(
        model, stops, stream, include_usage, created, card.digest, card.exactness, asker.body_digest, cut.words,
        surface.name, more, live, promise=promise,
    )  # fmt: skip
    generation = Generation(
        id=f"{needs.bits(96):024x}",
        prompt_ids=prompt_ids,
        sampling=sampled,
        max_tokens=cut.max_tokens,
        thinking_max=_thinking_max(cut, prompt, card),
        seed=seed_of(ask, needs),
        stop_ids=() if ask.ignore_eos else dialect.stop_ids,
        deadline=needs.clock.now() + asker.deadline_s,
        key=asker.key,
        tenant=asker.tenant,
        priority=asker.priority or 0,
        client=asker.client,
        session=asker.session or session_of(ask, asker),
        body_bytes=asker.body_bytes,
        whole=not stream,
        idempotency=asker.idempotency,
        note=write_note(note),
    )
    parser = dialect.parser(prompt_ids) if surface.parser is None else surface.parser(dialect, prompt_ids)
    return Order(
        generation, parser, card, model, stops, stream, include_usage, created, promise, cut.words, more, live
    )  # fmt: skip


def _thinking_max(cut: Cut, prompt: Prompt, card: ModelCard) -> int:
    """The most tokens of reasoning. Under a grammar there is no bound where one may answer that could not go on after it."""
    bounds = [bound for bound in (cut.thinking_max, prompt.thinking_max) if bound]
    if not bounds or (prompt.grammar and any(one.grammar is Hold.FRESH for one in card.kinds)):
        return 0
    return min(bounds)


def session_of(ask: Ask, asker: Asker) -> str:
    """What belongs together, as its client calls it: a hint where its cache is. Only a digest goes on from here."""
    said = ask.prompt_cache_key or ask.user_id or ask.user
    if not said:
        return ""
    return blake2b(said.encode("utf-8", "replace"), digest_size=16, key=digest_of_key(asker.key)).hexdigest()


def cut_of(max_tokens: int, prompt_ids: list[int], asker: Asker, needs: Needs) -> Cut:
    """How long the answer may be, as the ladder stands."""
    degrader = needs.degrader
    if degrader is None or not degrader.rung or asker.never_degrade:
        return Cut(max_tokens)
    return degrader.cut(max_tokens, needs.dialect.thinking_end(prompt_ids) is not None, needs.stands_in)
