"""The control plane: the site's pages and its gRPC health over the state folder."""

import sys
from collections.abc import Callable
from functools import partial

from msgspec import Struct
from starlette.applications import Starlette

from holdfast.app.doorkeeper import Doorkeeper
from holdfast.app.metrics import gathered
from holdfast.domain.address import TcpAddress, is_loopback
from holdfast.domain.roster import Roster
from holdfast.domain.settings import Settings
from holdfast.domain.site import SiteView
from holdfast.fleet.control import Papers, control_app
from holdfast.fleet.health import Complaints, complaints
from holdfast.fleet.load import SiteLoad, site_load
from holdfast.fleet.unwatched import unwatched
from holdfast.host import proc
from holdfast.host.clock import MonotonicClock, unix_s
from holdfast.host.health import HealthServer
from holdfast.store import events, snapshot
from holdfast.store.births import Births
from holdfast.store.board import board_folder, views
from holdfast.store.folder import Folder, folder_of
from holdfast.store.lock import holder

LOOK_S = 0.1  # how old the health that is told may be: reading it is a few files
WATCHERS_MAX = 56


class ControlPlane(Struct):
    """The pages, and gRPC health where it is served; `address` is empty where it is not."""

    app: Starlette
    health: HealthServer
    address: str


def control_plane(settings: Settings, started: Callable[[str], None]) -> ControlPlane:
    """The control plane; `started` is called, with the address of gRPC health, when the pages begin to answer.

    A health port that can't be had is told on stderr and at /health, and takes nothing else down.
    """
    folder = folder_of(settings)
    read_site = partial(_read_site, folder)
    health = HealthServer(partial(_complaints, folder, settings.model.name), MonotonicClock().now, LOOK_S, WATCHERS_MAX)
    address, why = "", "off: [control] health_port is 0"
    if settings.control.health_port:
        try:
            address = why = health.start(TcpAddress(settings.control.host, settings.control.health_port))
        except OSError as error:
            why = f"off: {error}. Choose another port with [control] health_port"
            print(f"holdfast control: {why}", file=sys.stderr)
    papers = Papers(
        read_site=read_site,
        read_events=partial(events.recent, folder.events),
        read_load=partial(read_load, settings),
        health=why,
        read_metrics=partial(gathered, folder.sockets),
        screen=Doorkeeper(settings, unix_s).screen,
        here=is_loopback(settings.control.host),
    )
    return ControlPlane(control_app(papers, partial(started, address)), health, address)


def read_load(settings: Settings) -> SiteLoad:
    """What all workers of this site tell at this moment."""
    folder = folder_of(settings)
    told = views(board_folder(folder.root))
    return site_load(settings.site.name, told, _read_site(folder), MonotonicClock().now(), unix_s())


def _read_site(folder: Folder) -> SiteView | None:
    view = snapshot.take(folder.site, SiteView)
    if view is None or holder(folder.lock):
        return view
    return unwatched(view, Births(folder.births).read(), proc.running_s)


def _complaints(folder: Folder, model: str) -> Complaints:
    return complaints(_read_site(folder), snapshot.take(folder.roster, Roster) or Roster(), model)
