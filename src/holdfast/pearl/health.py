"""grpc.health.v1, so that grpc_health_probe and Kubernetes see the truth: SERVING only while the replica's loop moves.

It runs in threads of its own: a loop that hangs can't answer, so somebody else must say that it hangs. What is said comes
from the pulse at the moment of asking, never from a flag that someone has to remember to change.
Protocol: https://github.com/grpc/grpc/blob/master/doc/health-checking.md. Check of an unknown service is NOT_FOUND, Watch
of one says SERVICE_UNKNOWN and stays open.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health_pb2

from holdfast.domain.address import TcpAddress, UnixAddress

_STATUS = health_pb2.HealthCheckResponse
_SERVICE = "grpc.health.v1.Health"
_THREADS = 16
_WATCHERS_MAX = 12  # each holds a thread; the rest stay free for Check
_LOOK_S = 0.1  # how soon a watcher is told of a change


class HealthServer:
    """Serves Check, List and Watch for the service names given; `complaint` is empty while they serve."""

    def __init__(self, services: frozenset[str], complaint: Callable[[], str]) -> None:
        self._services = services
        self._complaint = complaint
        self._stopping = threading.Event()
        self._watchers = threading.Semaphore(_WATCHERS_MAX)
        # Without this option two replicas could share one port, and a probe would ask either.
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
        if request.service not in self._services:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r} here")
        return _STATUS(status=self._status())

    def list_all(
        self, request: health_pb2.HealthListRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthListResponse:
        """All services at once."""
        status = _STATUS(status=self._status())
        return health_pb2.HealthListResponse(statuses=dict.fromkeys(self._services, status))

    def watch(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> Iterator[health_pb2.HealthCheckResponse]:
        """The status now, and again whenever it changes."""
        if not self._watchers.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{_WATCHERS_MAX} watchers are here already: use Check")
        try:
            known = request.service in self._services
            told = None
            while context.is_active() and not self._stopping.is_set():
                status = self._status() if known else _STATUS.SERVICE_UNKNOWN
                if status != told:
                    told = status
                    yield _STATUS(status=status)
                self._stopping.wait(_LOOK_S)
        finally:
            self._watchers.release()

    def _status(self) -> int:
        return int(_STATUS.NOT_SERVING if self._complaint() or self._stopping.is_set() else _STATUS.SERVING)
