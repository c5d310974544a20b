"""grpc.health.v1, so that grpc_health_probe and Kubernetes see the truth: for one replica, and for a whole site.

It runs in threads of its own: a loop that hangs can't answer, so somebody else must say that it hangs. What is said is read
when somebody asks, never from a flag that someone has to remember to change.
Protocol: https://github.com/grpc/grpc/blob/master/doc/health-checking.md. Check of an unknown service is NOT_FOUND; Watch of
one says SERVICE_UNKNOWN, stays open, and tells when it appears.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health_pb2

from holdfast.domain.address import TcpAddress, UnixAddress

_STATUS = health_pb2.HealthCheckResponse
_SERVICE = "grpc.health.v1.Health"
WATCH_S = 0.1  # how soon a watcher is told of a change


class HealthServer:
    """Serves Check, List and Watch for the services that `read` names: each with a sentence, empty while it serves.

    `every_s`: read no more often than this, however many ask; `now` is the Clock's. `watchers_max`: each holds a thread; as
    many as a quarter more are kept for Check.
    """

    def __init__(
        self, read: Callable[[], dict[str, str]], now: Callable[[], float], every_s: float = 0.0, watchers_max: int = 12
    ) -> None:
        self._read, self._now, self._every_s, self._watchers_max = read, now, every_s, watchers_max
        self._lock = threading.Lock()
        self._last: tuple[float, dict[str, str]] | None = None
        self._stopping = threading.Event()
        self._watchers = threading.Semaphore(watchers_max)
        threads = ThreadPoolExecutor(watchers_max + max(4, watchers_max // 4), "health")
        # Without this option two servers could share one port, and a probe would ask either.
        self._server = grpc.server(threads, options=(("grpc.so_reuseport", 0),))
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

    def start(self, address: UnixAddress | TcpAddress) -> str:
        """Listen, and return the address with its real port.

        Raises:
            OSError: the address can't be had.
        """
        try:
            port = self._server.add_insecure_port(str(address))
        except RuntimeError as error:
            raise OSError(f"can't serve health checks at {address}: {error}") from error
        self._server.start()
        return str(TcpAddress(address.host, port) if isinstance(address, TcpAddress) else address)

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
            context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"{self._watchers_max} watchers are here already: use Check"
            )
        try:
            told = None
            while context.is_active() and not self._stopping.is_set():
                status = self._status(request.service)
                if status != told:
                    told = status
                    yield _STATUS(status=status)
                self._stopping.wait(WATCH_S)
        finally:
            self._watchers.release()

    def _complaints(self) -> dict[str, str]:
        """Of now, or of a moment ago."""
        with self._lock:
            now = self._now()
            if self._last is None or now - self._last[0] >= self._every_s:
                self._last = now, self._read()
            return self._last[1]

    def _status(self, service: str) -> int:
        found = self._complaints()
        if service not in found:
            return int(_STATUS.SERVICE_UNKNOWN)
        return int(_STATUS.NOT_SERVING if found[service] or self._stopping.is_set() else _STATUS.SERVING)
