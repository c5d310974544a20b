"""grpc.health.v1 of the whole site: one service for the model, one for each replica, and "" for the site itself.

It is worked out from the state files at the moment of asking, so it tells the same truth while nobody supervises: what the
roster lists is served, as long as its process runs. A replica SERVES when the roster lists it with weight, it is not asked to
leave, and nobody suspects it; the site and the model do when any replica serves and a gateway worker listens.

It runs in threads of its own, beside the pages. Protocol: https://github.com/grpc/grpc/blob/master/doc/health-checking.md.
Check of an unknown service is NOT_FOUND; Watch of one says SERVICE_UNKNOWN, stays open, and tells when it appears.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health_pb2

from holdfast.domain.address import TcpAddress
from holdfast.domain.replica import ReplicaState
from holdfast.domain.roster import Roster
from holdfast.domain.site import ProcessView, Role, SiteView

_STATUS = health_pb2.HealthCheckResponse
_SERVICE = "grpc.health.v1.Health"
_THREADS = 64
_WATCHERS_MAX = 56  # each holds a thread; the rest stay free for Check
LOOK_S = 0.1  # how soon a watcher is told of a change, and how old a status may be

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
    elif not any(not why for why in found.values()):
        site = "no replica may serve at present"
    else:
        site = ""
    return {**found, model: site, "": site}


def _of_replica(one: ProcessView, roster: Roster) -> str:
    place = next((place for place in roster.places if place.replica == one.name), None)
    if place is None:
        return one.why or f"it is {one.state}"
    if place.leaving or place.weight <= 0:
        return place.leaving or "it gets no new work"
    if one.state in (
        ReplicaState.SERVING,
        ReplicaState.STARTING,
    ):  # adopted: it answers, its new supervisor did not ask yet
        return ""
    return one.why or f"it is {one.state}"


def _listens(one: ProcessView) -> bool:
    """A worker that was adopted is starting only in the eyes of its new supervisor: it has an address already."""
    return one.state is ReplicaState.SERVING or (one.state is ReplicaState.STARTING and bool(one.address))


class SiteHealth:
    """Serves Check, List and Watch. `read` gives the complaints of now, `now` is the Clock's."""

    def __init__(self, read: Callable[[], Complaints], now: Callable[[], float]) -> None:
        self._read, self._now = read, now
        self._lock = threading.Lock()
        self._last: tuple[float, Complaints] | None = None
        self._stopping = threading.Event()
        self._watchers = threading.Semaphore(_WATCHERS_MAX)
        # Without this option two sites could share one port, and a probe would ask either.
        self._server = grpc.server(ThreadPoolExecutor(_THREADS, "health"), options=(("grpc.so_reuseport", 0),))
        handlers = {
            "Check": grpc.unary_unary_rpc_method_handler(
                self.check, health_pb2.HealthCheckRequest.FromString, _STATUS.SerializeToString
            ),
            "List": grpc.unary_unary_rpc_method_handler(
                self.list_all, health_pb2.HealthListRequest.FromString, health_pb2.HealthListResponse.SerializeToString
            ),
            "Watch": grpc.unary_stream_rpc_method_handler(
                self.watch, health_pb2.HealthCheckRequest.FromString, _STATUS.SerializeToString
            ),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))

    def start(self, address: TcpAddress) -> str:
        """Listen, and return the address with its real port.

        Raises:
            OSError: the address can't be had.
        """
        try:
            port = self._server.add_insecure_port(str(address))
        except RuntimeError as error:
            raise OSError(f"can't serve health checks at {address}: {error}") from error
        self._server.start()
        return str(TcpAddress(address.host, port))

    def stop(self) -> None:
        """End all watches and stop listening."""
        self._stopping.set()
        self._server.stop(grace=0.5).wait()

    def check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """One answer for now."""
        status = self._status(request.service)
        if status == _STATUS.SERVICE_UNKNOWN:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r} here")
        return _STATUS(status=status)

    def list_all(
        self, request: health_pb2.HealthListRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthListResponse:
        """All services at once."""
        statuses = {name: _STATUS(status=self._status(name)) for name in self._complaints()}
        return health_pb2.HealthListResponse(statuses=statuses)

    def watch(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> Iterator[health_pb2.HealthCheckResponse]:
        """The status now, and again whenever it changes."""
        if not self._watchers.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{_WATCHERS_MAX} watchers are here already: use Check")
        try:
            told = None
            while context.is_active() and not self._stopping.is_set():
                status = self._status(request.service)
                if status != told:
                    told = status
                    yield _STATUS(status=status)
                self._stopping.wait(LOOK_S)
        finally:
            self._watchers.release()

    def _complaints(self) -> Complaints:
        """Read at most once in LOOK_S, however many ask."""
        with self._lock:
            now = self._now()
            if self._last is None or now - self._last[0] >= LOOK_S:
                self._last = now, self._read()
            return self._last[1]

    def _status(self, service: str) -> int:
        found = self._complaints()
        if service not in found:
            return int(_STATUS.SERVICE_UNKNOWN)
        return int(_STATUS.NOT_SERVING if found[service] or self._stopping.is_set() else _STATUS.SERVING)
