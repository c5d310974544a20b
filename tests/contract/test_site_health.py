"""gRPC health of a whole site: what the roster lists is served, and everybody who asks is told the same."""

from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from msgspec import structs

from holdfast.app.control import LOOK_S, WATCHERS_MAX
from holdfast.domain.address import TcpAddress
from holdfast.domain.replica import ReplicaState
from holdfast.domain.roster import Place, Roster
from holdfast.domain.site import ProcessView, Role, SiteView
from holdfast.fleet.health import complaints
from holdfast.host.clock import MonotonicClock
from holdfast.host.health import HealthServer

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
GATEWAY = ProcessView(name="gateway-0", role=Role.GATEWAY, state=ReplicaState.SERVING, why="", address="x:1")


def replica(number: int, state: ReplicaState = ReplicaState.SERVING, why: str = "") -> ProcessView:
    return ProcessView(name=f"replica-{number}", role=Role.REPLICA, state=state, why=why)


def view(*processes: ProcessView) -> SiteView:
    return SiteView(name="s", at=0.0, supervisor_pid=1, address="", model="pearl", processes=processes)


def place(number: int, leaving: str = "") -> Place:
    weight = 0.0 if leaving else 1.0
    return Place(replica=f"replica-{number}", address="unix:/x", boot="b", weight=weight, leaving=leaving)


WELL = view(replica(0), replica(1), GATEWAY)
BOTH = Roster(places=(place(0), place(1)))


def test_all_is_well() -> None:
    assert complaints(WELL, BOTH, "pearl") == dict.fromkeys(("", "pearl", "replica-0", "replica-1"), "")


def test_a_replica_that_leaves_is_not_served_and_the_model_is() -> None:
    told = complaints(WELL, Roster(places=(place(0, "it is drained, for repair"), place(1))), "pearl")
    assert told == {"": "", "pearl": "", "replica-0": "it is drained, for repair", "replica-1": ""}


@pytest.mark.parametrize("state", [ReplicaState.SUSPECT, ReplicaState.DOWN, ReplicaState.QUARANTINED])
def test_one_that_is_suspected_or_gone_is_not_served_even_while_the_roster_lists_it(state: ReplicaState) -> None:
    told = complaints(view(replica(0, state, "it is silent"), replica(1), GATEWAY), BOTH, "pearl")
    assert told["replica-0"] == "it is silent"
    assert told["pearl"] == told["replica-1"] == ""


def test_one_that_is_adopted_never_stopped_serving() -> None:
    adopted = structs.replace(GATEWAY, state=ReplicaState.STARTING)
    told = complaints(view(replica(0, ReplicaState.STARTING), replica(1), adopted), BOTH, "pearl")
    assert set(told.values()) == {""}


def test_without_a_replica_or_a_gateway_nothing_is_served() -> None:
    assert complaints(WELL, Roster(), "pearl")["pearl"] == "no replica may serve at present"
    down = structs.replace(GATEWAY, state=ReplicaState.DOWN)
    told = complaints(view(replica(0), down), BOTH, "pearl")
    assert told["pearl"] == told[""] == "no gateway worker listens"
    assert told["replica-0"] == ""
    assert set(complaints(None, BOTH, "pearl").values()) == {"nobody has described this site yet"}


class Ward:
    """A site's health service on a free port."""

    def __init__(self) -> None:
        self.told = complaints(WELL, BOTH, "pearl")
        self.reads = 0
        self.server = HealthServer(self._read, MonotonicClock().now, LOOK_S, WATCHERS_MAX)
        self.channel = grpc.insecure_channel(self.server.start(TcpAddress("127.0.0.1", 0)))
        self.stub = health_pb2_grpc.HealthStub(self.channel)

    def _read(self) -> dict[str, str]:
        self.reads += 1
        return dict(self.told)

    def check(self, service: str) -> int:
        return int(self.stub.Check(health_pb2.HealthCheckRequest(service=service)).status)


@pytest.fixture
def ward() -> Iterator[Ward]:
    opened = Ward()
    yield opened
    opened.channel.close()
    opened.server.stop()


def test_check_and_list_of_every_service(ward: Ward) -> None:
    ward.told["replica-1"] = "it is silent"
    for service in ("", "pearl", "replica-0"):
        assert ward.check(service) == SERVING
    assert ward.check("replica-1") == NOT_SERVING
    listed = ward.stub.List(health_pb2.HealthListRequest()).statuses
    assert {name: one.status for name, one in listed.items()} == {
        "": SERVING,
        "pearl": SERVING,
        "replica-0": SERVING,
        "replica-1": NOT_SERVING,
    }


def test_check_of_an_unknown_service_is_not_found(ward: Ward) -> None:
    with pytest.raises(grpc.RpcError) as told:
        ward.check("replica-9")
    assert told.value.code() is grpc.StatusCode.NOT_FOUND


def test_watch_tells_every_change_and_of_a_service_that_appears(ward: Ward) -> None:
    model = ward.stub.Watch(health_pb2.HealthCheckRequest(service="pearl"))
    later = ward.stub.Watch(health_pb2.HealthCheckRequest(service="replica-2"))
    assert (next(model).status, next(later).status) == (SERVING, UNKNOWN)
    ward.told = {**ward.told, "pearl": "no replica may serve at present", "replica-2": "it is starting"}
    assert (next(model).status, next(later).status) == (NOT_SERVING, NOT_SERVING)
    ward.told = {**ward.told, "pearl": "", "replica-2": ""}
    assert (next(model).status, next(later).status) == (SERVING, SERVING)
    model.cancel()
    later.cancel()


def test_many_who_ask_cost_one_reading(ward: Ward) -> None:
    clock = MonotonicClock()
    began = clock.now()
    for _ in range(50):
        ward.check("pearl")
    assert ward.reads <= 2 + (clock.now() - began) / LOOK_S


def test_one_that_stands_by_takes_no_traffic_and_a_smaller_model_is_not_the_site() -> None:
    warm = structs.replace(place(1), weight=0.0, warm=True)
    told = complaints(
        view(replica(0), replica(1, ReplicaState.WARM), GATEWAY), Roster(places=(place(0), warm)), "pearl"
    )
    assert (told["replica-1"], told[""]) == ("it stands by", "")
    small = structs.replace(replica(1), model="tiny")
    told = complaints(
        view(replica(0, ReplicaState.DOWN, "it died"), small, GATEWAY), Roster(places=(place(1),)), "pearl"
    )
    assert told["pearl"] == "no replica may serve at present"
