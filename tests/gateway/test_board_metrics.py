"""A scrape tells of all workers, whichever of them answers it."""

from prometheus_client import CollectorRegistry, generate_latest

from holdfast.domain.board import ReplicaView, WorkerView
from holdfast.gateway.board_metrics import BoardCollector
from holdfast.sim.shelf import SimShelves
from holdfast.store.board import FileBoard


def test_every_workers_figures_are_told_under_its_short_name() -> None:
    shelves = SimShelves()
    boards = [FileBoard(shelves.shelf(), f"gateway-{number}.0123abcd") for number in range(2)]
    for number, board in enumerate(boards):
        replica = ReplicaView(replica="replica-0", boot="b", running=number, state="leaving" if number else "serving")
        refused = {"queue_wait": 7 + number}
        name, admitted = f"gateway-{number}.0123abcd", 10 + number
        board.tell(WorkerView(worker=name, at=1.0, admitted=admitted, refused=refused, replicas=(replica,)))
    registry = CollectorRegistry()
    registry.register(BoardCollector(boards[1]))
    text = generate_latest(registry).decode()
    assert 'holdfast_worker_admitted_total{worker="gateway-0"} 10.0' in text
    assert 'holdfast_worker_admitted_total{worker="gateway-1"} 11.0' in text
    assert 'holdfast_worker_refused_total{limit="queue_wait",worker="gateway-0"} 7.0' in text
    assert 'holdfast_replica_running{replica="replica-0",worker="gateway-1"} 1.0' in text
    assert 'holdfast_replica_serves{replica="replica-0",worker="gateway-0"} 1.0' in text
    assert 'holdfast_replica_serves{replica="replica-0",worker="gateway-1"} 0.0' in text
    for board in boards:
        board.close()
