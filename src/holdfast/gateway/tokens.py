"""POST /v1/tokenize and /v1/detokenize: what a text or a conversation is in this model's ids, and back; and how many ids
Anthropic's clients would spend on a message.

Who may ask for an answer may ask for this, and it takes one from the same rate. The body's limit bounds it; long texts are done
in a thread, so that the answers of this worker flow on.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import msgspec

from holdfast.domain.event import RequestRefused
from holdfast.domain.fault import BadRequest, Fault
from holdfast.gateway import anthropic_wire
from holdfast.gateway.connection import Exchange
from holdfast.gateway.head import asker
from holdfast.gateway.needs import Needs
from holdfast.gateway.nesting import refuse_forest
from holdfast.gateway.openai_wire import Ask, read
from holdfast.gateway.pages import Answer, dress_of, request_id_line
from holdfast.gateway.plain import text_of
from holdfast.gateway.prompting import rendered, thinks
from holdfast.gateway.refusals import JSON_TYPE, refusal_for
from holdfast.gateway.token_wire import DetokenizeBody, TokenizeBody

_json = msgspec.json.Encoder().encode
_TOKENIZE = msgspec.json.Decoder(TokenizeBody)
_DETOKENIZE = msgspec.json.Decoder(DetokenizeBody)


class Counted(NamedTuple):
    """An answer's body, and how many ids were asked about."""

    page: bytes
    tokens: int


Make = Callable[[bytes], Counted]


class Tokens:
    """Answers them."""

    def __init__(self, needs: Needs) -> None:
        self._needs = needs

    def pages(self) -> dict[bytes, Answer]:
        """Who answers which path."""
        return {path: partial(self._answer, make=make) for path, make in self.makers().items()}

    def makers(self) -> dict[bytes, Make]:
        """From a body to its answer, by path; each raises BadRequest."""
        return {
            b"/v1/tokenize": self._tokens,
            b"/tokenize": self._tokens,
            b"/v1/detokenize": self._text,
            b"/detokenize": self._text,
            b"/anthropic/v1/messages/count_tokens": self._counted,
        }

    async def _answer(self, exchange: Exchange, make: Make) -> None:
        """One exchange."""
        needs, request = self._needs, exchange.request
        try:
            who = exchange.who = asker(request, needs.limits.deadline_s)
            if needs.glance is not None:
                needs.glance(who, exchange.address)
            elif needs.screen is not None:
                needs.screen(who.key, who.body_bytes)
            refuse_forest(request.body, needs.limits.json_depth_max, needs.limits.json_nodes_max)
            try:
                tries = make == self._counted  # a grammar may be tried out, which can take long whatever the size
                if len(request.body) < needs.limits.large_text_bytes and not tries:
                    counted = make(request.body)
                else:
                    counted = await asyncio.to_thread(make, request.body)
            except RecursionError as error:
                raise BadRequest("The body's JSON is nested too deeply; flatten it.", code="invalid_json") from error
        except Fault as fault:
            said = dress_of(request.path)(refusal_for(fault))
            needs.emit(RequestRefused(status=said.status, why=fault.why))
            exchange.refuse(said, request_id_line(request, needs.bits))
            return
        exchange.tokens_in += counted.tokens
        exchange.send(200, JSON_TYPE + request_id_line(request, needs.bits), counted.page)

    def _tokens(self, body: bytes) -> Counted:
        """Raises BadRequest."""
        said, card, dialect = read(_TOKENIZE, body, {}), self._needs.card(), self._needs.dialect
        if (said.prompt is None) == (said.messages is None):
            raise BadRequest("Send prompt or messages, one of them.", "prompt" if said.prompt is None else "messages")
        ask = Ask(model=said.model or card.name, messages=said.messages or [], thinking=said.thinking, tools=said.tools)
        if said.prompt is None:
            ids = rendered(ask, dialect, card)
        else:
            thinks(ask, card)
            ids = dialect.complete(said.prompt, None) if said.add_special_tokens else dialect.encode(said.prompt)
        page = {"tokens": ids, "count": len(ids), "max_model_len": card.context_tokens_max}
        return Counted(_json(page), len(ids))

    def _counted(self, body: bytes) -> Counted:
        """Raises BadRequest."""
        needs = self._needs
        (prompt,) = anthropic_wire.prompts(anthropic_wire.decode_count(body), needs, needs.card())
        return Counted(_json({"input_tokens": len(prompt.ids)}), len(prompt.ids))

    def _text(self, body: bytes) -> Counted:
        """Raises BadRequest."""
        said, card, dialect = read(_DETOKENIZE, body, {}), self._needs.card(), self._needs.dialect
        thinks(Ask(model=said.model or card.name, messages=[]), card)
        for i, token in enumerate(said.tokens):
            if not 0 <= token < dialect.vocab_size:
                why = f"tokens[{i}] is {token}, but token ids are 0 to {dialect.vocab_size - 1}."
                raise BadRequest(why, f"tokens[{i}]")
        return Counted(_json({"prompt": text_of(dialect, said.tokens)}), len(said.tokens))
