"""The control plane: the site's pages over the state folder."""

from collections.abc import Callable
from functools import partial

from starlette.applications import Starlette

from holdfast.domain.settings import Settings
from holdfast.domain.site import SiteView
from holdfast.fleet.control import Papers, control_app
from holdfast.fleet.unwatched import unwatched
from holdfast.host import proc
from holdfast.store import events, snapshot
from holdfast.store.births import Births
from holdfast.store.folder import folder_of
from holdfast.store.lock import holder


def control_plane(settings: Settings, started: Callable[[], None]) -> Starlette:
    """The control plane's application; `started` is called when it begins to answer."""
    folder = folder_of(settings)

    def read_site() -> SiteView | None:
        view = snapshot.take(folder.site, SiteView)
        if view is None or holder(folder.lock):
            return view
        return unwatched(view, Births(folder.births).read(), proc.running_s)

    return control_app(Papers(read_site=read_site, read_events=partial(events.recent, folder.events)), started)
