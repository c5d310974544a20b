"""Which path is answered by whom, and the small pages: models, health, metrics."""

import re
from collections.abc import Callable, Coroutine
from urllib.parse import unquote

import msgspec
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from holdfast.domain.fault import Fault
from holdfast.gateway.anthropic_events import refuse
from holdfast.gateway.connection import Exchange
from holdfast.gateway.cors import Cors
from holdfast.gateway.incoming import Request
from holdfast.gateway.needs import Needs
from holdfast.gateway.openapi import described
from holdfast.gateway.refusals import JSON_TYPE, Refusal, refusal, refusal_for
from holdfast.gateway.surface import Surface
from holdfast.gateway.surfaces import BY_PATH, as_it_is

Answer = Callable[[Exchange], Coroutine[None, None, None]]
AnswerIn = Callable[[Exchange, Surface], Coroutine[None, None, None]]
_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
MODEL = (b"/v1/models/", b"/models/")
FIGURES_REST = 30.0  # times what making them took
STREAM = (b"/v1/streams/", b"/streams/", b"/beta/streams/")


def bearer(request: Request) -> str:
    """The API key, or nothing."""
    return request.key.decode("latin-1")


def request_id_line(request: Request, made: str | Callable[[int], int]) -> bytes:
    """x-request-id: the client's own if it is short and plain, else ours (`made`, or drawn from a source of bits)."""
    said = request.headers.get(b"x-request-id")
    if said is not None and _SANE_ID.fullmatch(said):
        return b"x-request-id: %b\r\n" % said
    if not isinstance(made, str):
        made = f"{made(96):024x}"
    return b"x-request-id: %b\r\n" % made.encode()


def dress_of(path: bytes) -> Callable[[Refusal], Refusal]:
    """The shape of error pages below a path."""
    return refuse if path.startswith(b"/anthropic/") else as_it_is


class Pages:
    """Routes every request; answers all but those for answers."""

    def __init__(
        self, needs: Needs, chat: AnswerIn, resumed: Answer, tokens: dict[bytes, Answer], draining: Callable[[], bool]
    ) -> None:
        self._needs = needs
        self._chat = chat
        self._resumed = resumed
        self._tokens = tokens
        self._draining = draining
        self._cors = Cors(needs.cors)
        self._figures_page, self._figures_due = b"", 0.0
        self._gets: dict[bytes, Callable[[Exchange], None]] = {
            b"/v1/models": self._models,
            b"/models": self._models,
            b"/health/live": self._live,
            b"/health/ready": self._ready,
            b"/metrics": self._metrics,
            b"/openapi.json": self._openapi,
        }

    def handle(self, exchange: Exchange) -> Coroutine[None, None, None] | None:
        """A coroutine that answers, or None when the answer was given at once."""
        request = exchange.request
        if b"origin" in request.headers and self._intrudes(exchange):
            return None
        surface = BY_PATH.get(request.path)
        if surface is None:
            request.path = request.path.partition(b"?")[0]
            surface = BY_PATH.get(request.path)
        path = request.path
        if surface is not None:
            if request.method == b"POST":
                return self._chat(exchange, surface)
            self._wrong_method(exchange, b"POST", surface.refuse)
            return None
        if path in self._tokens and request.method == b"POST":
            return self._tokens[path](exchange)
        page = self._gets.get(path)
        if page is None and path.startswith(MODEL):
            page = self._model
        if path.startswith(STREAM) and request.method == b"GET":
            return self._resumed(exchange)
        if path in self._tokens:
            self._wrong_method(exchange, b"POST", dress_of(path))
        elif path.startswith(STREAM):
            self._wrong_method(exchange, b"GET")
        elif page is None:
            why = f"There is no {path.decode('latin-1')!r} here; chat is at /v1/chat/completions."
            exchange.refuse(dress_of(path)(refusal(404, why, "not_found")), self._id(exchange))
        elif request.method not in (b"GET", b"HEAD"):
            self._wrong_method(exchange, b"GET")
        else:
            page(exchange)
        return None

    def _intrudes(self, exchange: Exchange) -> bool:
        """Whether a web page asks through its reader's browser, where being on this machine is all that is asked for.

        A browser keeps the answer from it, but not the question; and not even that, once the page's name means this machine.
        """
        request = exchange.request
        if request.method != b"POST" or not self._cors.strange(request.headers[b"origin"]):
            return False
        if not self._needs.takes_anybody(bearer(request)):
            return False
        why = "No key is needed here, so web pages may not ask; name their origin in [gateway] cors_origins, or make a key."
        exchange.refuse(dress_of(request.path)(refusal(403, why, "origin")), self._id(exchange))
        return True

    def _id(self, exchange: Exchange) -> bytes:
        return request_id_line(exchange.request, self._needs.bits)

    def _show(self, exchange: Exchange, value: object, status: int = 200) -> None:
        exchange.send(status, JSON_TYPE + self._id(exchange), msgspec.json.encode(value))

    def _wrong_method(self, exchange: Exchange, allowed: bytes, dress: Callable[[Refusal], Refusal] = as_it_is) -> None:
        if exchange.request.method == b"OPTIONS":
            exchange.options(allowed, self._id(exchange))
            return
        path, method = exchange.request.path.decode("latin-1"), exchange.request.method.decode("latin-1")
        said = refusal(405, f"{path} is asked with {allowed.decode()}, not {method}.", "method_not_allowed")
        exchange.refuse(dress(said), self._id(exchange) + b"allow: %b\r\n" % allowed)

    def _allowed(self, exchange: Exchange) -> bool:
        """Whether the caller may look; answers for itself when not."""
        screen = self._needs.screen
        if screen is None:
            return True
        return self._passes(exchange, lambda key: screen(key, 0))

    def _passes(self, exchange: Exchange, screen: Callable[[str], None]) -> bool:
        try:
            screen(bearer(exchange.request))
        except Fault as fault:
            exchange.refuse(refusal_for(fault), self._id(exchange))
            return False
        return True

    def _rows(self) -> dict[str, dict[str, object]]:
        card = self._needs.card()
        names = (card.name, *(name for name, _ in card.aliases))
        made = card.created_unix_s
        return {name: {"id": name, "object": "model", "created": made, "owned_by": "holdfast"} for name in names}

    def _models(self, exchange: Exchange) -> None:
        if self._allowed(exchange):
            self._show(exchange, {"object": "list", "data": list(self._rows().values())})

    def _model(self, exchange: Exchange) -> None:
        if not self._allowed(exchange):
            return
        name = unquote(exchange.request.path.partition(b"models/")[2].decode("latin-1"))
        rows = self._rows()
        if name in rows:
            self._show(exchange, rows[name])
        else:
            why = f"The model {name!r} does not exist here; there is: {', '.join(rows)}."
            exchange.refuse(refusal(404, why, "model_not_found", param="model"), self._id(exchange))

    def _live(self, exchange: Exchange) -> None:
        self._show(exchange, {"live": True})

    def _ready(self, exchange: Exchange) -> None:
        ready, why = self._needs.ready()
        if self._draining():
            ready, why = False, "this gateway is draining"
        self._show(exchange, {"ready": ready, "why": why}, 200 if ready else 503)

    def _openapi(self, exchange: Exchange) -> None:
        exchange.send(200, JSON_TYPE + self._id(exchange), described())

    def _metrics(self, exchange: Exchange) -> None:
        if not self._passes(exchange, self._needs.screen_metrics):
            return
        kind = f"content-type: {CONTENT_TYPE_LATEST}\r\n".encode()
        exchange.send(200, kind + self._id(exchange), self._figures())

    def _figures(self) -> bytes:
        """The page of all figures. It costs milliseconds, and anybody may ask: so it is not made anew at each question."""
        now = self._needs.clock.now
        began = now()
        if began >= self._figures_due:
            self._figures_page = generate_latest(self._needs.registry)
            self._figures_due = now() + FIGURES_REST * (now() - began)
        return self._figures_page
