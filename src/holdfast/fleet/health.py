"""What is wrong with the site, service by service: one for the model, one for each replica, and "" for the site itself.

It is worked out from the state files, so it tells the same truth while nobody supervises: what the roster lists is served, as
long as its process runs. A replica SERVES when the roster lists it with weight, it is not asked to leave, and nobody
suspects it; the site and the model do when any replica serves and a gateway worker listens. host/health.py publishes it.
"""

from holdfast.domain.replica import ReplicaState
from holdfast.domain.roster import Roster
from holdfast.domain.site import ProcessView, Role, SiteView

Complaints = dict[str, str]  # service -> why it should take no traffic; empty while it may


def complaints(view: SiteView | None, roster: Roster, model: str) -> Complaints:
    """What is wrong with each service of the site; the empty sentence where nothing is."""
    if view is None:
        return dict.fromkeys(("", model), "nobody has described this site yet")
    replicas = {one.name: one for one in view.processes if one.role is Role.REPLICA}
    found = {name: _of_replica(one, roster) for name, one in replicas.items()}
    gateways = [one for one in view.processes if one.role is Role.GATEWAY]
    if not any(_listens(one) for one in gateways):
        site = "no gateway worker listens"
    elif not any(not found[name] for name, one in replicas.items() if not one.model):
        site = "no replica may serve at present"
    else:
        site = ""
    return {**found, model: site, "": site}


def _of_replica(one: ProcessView, roster: Roster) -> str:
    place = next((place for place in roster.places if place.replica == one.name), None)
    if place is None:
        return one.why or f"it is {one.state}"
    if place.leaving or place.weight <= 0:
        return place.leaving or ("it stands by" if place.warm else "it gets no new work")
    if one.state in (
        ReplicaState.SERVING,
        ReplicaState.STARTING,
    ):  # adopted: it answers, its new supervisor did not ask yet
        return ""
    return one.why or f"it is {one.state}"


def _listens(one: ProcessView) -> bool:
    """A worker that was adopted is starting only in the eyes of its new supervisor: it has an address already."""
    return one.state is ReplicaState.SERVING or (one.state is ReplicaState.STARTING and bool(one.address))
