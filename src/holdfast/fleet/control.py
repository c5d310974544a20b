"""The control plane's pages: what runs on this site, in which state, and why. It only reads, so its death stops nothing."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from holdfast.domain.site import SiteView, plain
from holdfast.fleet.load import SiteLoad

EVENTS_MAX = 1000


@dataclass(frozen=True)
class Papers:
    """Where the pages come from: the supervisor's last view, the last events (oldest first), what the workers tell.

    `health` says where gRPC health is served, or why it is not.
    """

    read_site: Callable[[], SiteView | None]
    read_events: Callable[[int], list[dict[str, Any]]]
    read_load: Callable[[], SiteLoad]
    health: str = ""


def control_app(papers: Papers, started: Callable[[], None]) -> Starlette:
    """GET /v1/site, /v1/events?count=N, /v1/load and /health. `started` is called once the pages can be asked for."""

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

    @contextlib.asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        started()
        yield

    pages = {"/v1/site": site, "/v1/events": events, "/v1/load": load, "/health": health}
    return Starlette(routes=[Route(path, page) for path, page in pages.items()], lifespan=life)


def _json(body: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")
