"""The control plane's pages: what runs on this site, in which state, and why. It only reads, so its death stops nothing."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from holdfast.domain.address import is_unbending
from holdfast.domain.fault import Fault, Forbidden
from holdfast.domain.key import Scope
from holdfast.domain.site import SiteView, plain
from holdfast.fleet.load import SiteLoad

EVENTS_MAX = 1000
ADMIN, METRICS = frozenset({Scope.ADMIN}), frozenset({Scope.METRICS, Scope.ADMIN})
Page = Callable[[Request], Awaitable[Response]]


async def _nothing() -> bytes:
    return b""


@dataclass(frozen=True)
class Papers:
    """Where the pages come from: the supervisor's last view, the last events (oldest first), what the workers tell.

    `health` says where gRPC health is served, or why it is not. `read_metrics` gives the workers' figures.
    `screen` says why a key does not open what these scopes open; None lets its holder in.
    `here`: they are for this machine only; a web page that calls itself this machine is not, where no key is asked for.
    """

    read_site: Callable[[], SiteView | None]
    read_events: Callable[[int], list[dict[str, Any]]]
    read_load: Callable[[], SiteLoad]
    health: str = ""
    read_metrics: Callable[[], Awaitable[bytes]] = _nothing
    screen: Callable[[str, frozenset[Scope]], Fault | None] = lambda key, scopes: None
    here: bool = False


def control_app(papers: Papers, started: Callable[[], None]) -> Starlette:
    """GET /v1/site, /v1/events?count=N, /v1/load, /metrics and /health. `started` is called once the pages can be asked for."""

    async def site(request: Request) -> Response:
        view = papers.read_site()
        if view is None:
            return _json({"error": "the supervisor has not described this site yet"}, 503)
        body = plain(view)
        body["events"] = [event for event in papers.read_events(60) if event.get("event") != "step_taken"][-20:]
        return _json(body)

    async def events(request: Request) -> Response:
        asked = request.query_params.get("count", "100")
        if not asked.isdigit() or not 1 <= int(asked) <= EVENTS_MAX:
            return _json({"error": f"count must be a whole number from 1 to {EVENTS_MAX}"}, 400)
        return _json({"events": papers.read_events(int(asked))})

    async def load(request: Request) -> Response:
        return _json(papers.read_load())

    async def health(request: Request) -> Response:
        return _json({"ok": True, "grpc": papers.health})

    async def metrics(request: Request) -> Response:
        return Response(await papers.read_metrics(), media_type=CONTENT_TYPE_LATEST)

    @contextlib.asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        started()
        yield

    pages = {"/v1/site": site, "/v1/events": events, "/v1/load": load}
    routes = [Route(path, _screened(papers, page, ADMIN)) for path, page in pages.items()]
    routes += [Route("/metrics", _screened(papers, metrics, METRICS)), Route("/health", health)]
    return Starlette(routes=routes, lifespan=life)


def _screened(papers: Papers, page: Page, scopes: frozenset[Scope]) -> Page:
    """The page for those whose key opens it."""

    async def answer(request: Request) -> Response:
        said = request.headers.get("authorization", "")
        fault = papers.screen(said[7:].strip() if said[:7].lower() == "bearer " else "", scopes)
        host = request.headers.get("host", "localhost")
        if fault is None and papers.here and not is_unbending(host) and papers.screen("", scopes) is None:
            fault = Forbidden(
                "ask by this machine's address or as localhost, or make an admin key: a name may be anybody's"
            )
        if fault is None:
            return await page(request)
        return _json({"error": fault.why}, 403 if isinstance(fault, Forbidden) else 401)

    return answer


def _json(body: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")
