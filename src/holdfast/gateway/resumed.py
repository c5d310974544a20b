"""GET /v1/streams/ID: the rest of an answer whose connection was lost, from any worker.

With Last-Event-ID the rest after that event, without it all of it; whole answers come once they are finished. Only who sends
the API key that the answer was asked for with gets it; everybody else is told that it does not exist.
"""

import hmac
import re
from collections.abc import Callable

from holdfast.domain.event import RequestRefused
from holdfast.domain.fault import BadRequest, Fault
from holdfast.gateway.archive import Kept
from holdfast.gateway.chat import Chat
from holdfast.gateway.connection import Exchange
from holdfast.gateway.journal import digest_of_key
from holdfast.gateway.marks import read_mark
from holdfast.gateway.metrics import Tally
from holdfast.gateway.needs import Needs
from holdfast.gateway.order import GONE, read_note
from holdfast.gateway.pages import bearer, request_id_line
from holdfast.gateway.refusals import Refusal, refusal_for
from holdfast.gateway.surfaces import as_it_is, surface_of

NAME_BYTES_MAX = 128
_PREFIX = re.compile(r"^[a-z]+[-_]")  # that a surface puts in front of an answer's name: chatcmpl-, cmpl-, resp_, msg_


class Resumed:
    """Answers those who come back."""

    def __init__(self, needs: Needs, tally: Tally, chat: Chat) -> None:
        self._needs, self._tally, self._chat = needs, tally, chat

    async def answer(self, exchange: Exchange) -> None:
        """One exchange. A Fault becomes an error page."""
        needs, tally, request = self._needs, self._tally, exchange.request
        dress: Callable[[Refusal], Refusal] = as_it_is
        tally.in_flight += 1
        try:
            key, said = bearer(request), request.headers.get(b"last-event-id")
            if needs.screen is not None:
                needs.screen(key, 0)
            kept = await self._kept(request.path.rpartition(b"/")[2], key)
            dress = surface_of(read_note(kept.generation)).refuse
            mark = None if said is None else read_mark(said)
            tally.resumed += 1
            await self._chat.again(exchange, kept, key, mark)
        except Fault as fault:
            refused = dress(refusal_for(fault))
            needs.emit(RequestRefused(status=refused.status, why=fault.why))
            exchange.refuse(refused, request_id_line(request, needs.bits))
        finally:
            tally.in_flight -= 1

    async def _kept(self, name: bytes, key: str) -> Kept:
        streams = self._needs.streams
        if streams is None:
            raise BadRequest("This gateway keeps no journal: a lost answer must be asked for anew.", code=GONE)
        kept = None
        if len(name) <= NAME_BYTES_MAX and name.isascii():
            kept = await streams.find(_PREFIX.sub("", name.decode()))
        if kept is None or not hmac.compare_digest(kept.begun.key_digest, digest_of_key(key)):
            raise BadRequest("There is no such answer here, or not any more; ask anew.", code=GONE)
        return kept
