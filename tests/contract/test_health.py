"""A replica's health is what was seen to move, and grpc.health.v1 says so."""

from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from holdfast.domain.address import TcpAddress
from holdfast.domain.replica import Load
from holdfast.host.clock import MonotonicClock
from holdfast.host.health import HealthServer
from holdfast.pearl.pulse import TURN_S, Pulse

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
BUSY, IDLE = Load(step=7, running=1), Load(step=7)


def test_an_idle_replica_is_well_as_long_as_its_loop_turns() -> None:
    pulse = Pulse(100.0, still_s_max=2.0)
    assert pulse.complaint(100.0 + TURN_S) == ""
    pulse.see(IDLE, 101.0)
    for at in range(101, 200):
        pulse.turn(float(at))
        assert pulse.complaint(at + 1.0) == ""
    assert pulse.complaint(203.0) == "the event loop has not turned for 4.0 s"


def test_a_busy_replica_must_make_steps() -> None:
    pulse = Pulse(0.0, still_s_max=2.0)
    pulse.see(BUSY, 10.0)
    pulse.turn(12.0)
    assert pulse.complaint(12.0) == ""
    pulse.turn(12.5)
    assert pulse.complaint(12.5) == "work waits and the engine has made no step for 2.5 s"
    assert pulse.see(Load(step=8, running=1), 13.0)
    assert pulse.complaint(13.0) == ""


def test_a_step_that_counts_nothing_is_no_progress() -> None:
    pulse = Pulse(0.0, still_s_max=2.0)
    pulse.see(BUSY, 10.0)
    for at in (11.0, 12.0, 13.0):
        assert not pulse.see(BUSY, at)
    assert "no step for 3.0 s" in pulse.complaint(13.0)


def test_idleness_is_not_held_against_the_first_step() -> None:
    pulse = Pulse(0.0, still_s_max=2.0)
    pulse.see(IDLE, 1.0)
    pulse.turn(500.0)
    pulse.see(BUSY, 500.0)
    assert pulse.complaint(501.0) == ""


def test_a_draining_replica_says_so() -> None:
    pulse = Pulse(0.0, still_s_max=2.0)
    pulse.draining = True
    assert pulse.complaint(0.0) == "draining"


class Ward:
    """A health server whose replica is as well as `complaint` says."""

    def __init__(self) -> None:
        self.complaint = ""
        self.server = HealthServer(lambda: dict.fromkeys(("", "pearl"), self.complaint), MonotonicClock().now)
        address = self.server.start(TcpAddress("127.0.0.1", 0))
        self.port = int(address.rpartition(":")[2])
        self.channel = grpc.insecure_channel(address)
        self.stub = health_pb2_grpc.HealthStub(self.channel)


@pytest.fixture
def ward() -> Iterator[Ward]:
    opened = Ward()
    yield opened
    opened.channel.close()
    opened.server.stop()


def test_check_and_list_tell_the_state_of_the_moment(ward: Ward) -> None:
    for complaint, status in (("", SERVING), ("draining", NOT_SERVING), ("", SERVING)):
        ward.complaint = complaint
        for service in ("", "pearl"):
            assert ward.stub.Check(health_pb2.HealthCheckRequest(service=service)).status == status
        told = ward.stub.List(health_pb2.HealthListRequest()).statuses
        assert {name: one.status for name, one in told.items()} == {"": status, "pearl": status}


def test_check_of_an_unknown_service_is_not_found(ward: Ward) -> None:
    with pytest.raises(grpc.RpcError) as told:
        ward.stub.Check(health_pb2.HealthCheckRequest(service="nobody"))
    assert told.value.code() is grpc.StatusCode.NOT_FOUND


def test_watch_tells_at_once_and_at_every_change(ward: Ward) -> None:
    watch = ward.stub.Watch(health_pb2.HealthCheckRequest(service="pearl"))
    for complaint, status in (("", SERVING), ("draining", NOT_SERVING), ("", SERVING)):
        ward.complaint = complaint
        assert next(watch).status == status
    watch.cancel()


def test_watch_of_an_unknown_service_says_unknown_and_stays(ward: Ward) -> None:
    watch = ward.stub.Watch(health_pb2.HealthCheckRequest(service="nobody"))
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    assert watch.is_active()
    watch.cancel()


def test_watchers_never_starve_check(ward: Ward) -> None:
    watches = [ward.stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(12)]
    assert all(next(watch).status == SERVING for watch in watches)
    with pytest.raises(grpc.RpcError) as told:
        next(ward.stub.Watch(health_pb2.HealthCheckRequest()))
    assert told.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert ward.stub.Check(health_pb2.HealthCheckRequest()).status == SERVING
    for watch in watches:
        watch.cancel()


def test_a_taken_port_is_an_os_error(ward: Ward) -> None:
    other = HealthServer(lambda: {"": ""}, MonotonicClock().now)
    with pytest.raises(OSError, match="can't serve health checks"):
        other.start(TcpAddress("127.0.0.1", ward.port))
    other.stop()
