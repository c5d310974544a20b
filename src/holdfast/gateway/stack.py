"""The gateway's table of contents: one visible list, read downwards. The request falls, the answer rises.

A Layer wraps a Service and obeys one policy. Order is meaning; each line says why it stands where it does.
"""

from dataclasses import dataclass

from holdfast.domain.event import Emit
from holdfast.domain.ports import Clock
from holdfast.gateway.admit import Gate, admit
from holdfast.gateway.dial import dial
from holdfast.gateway.expire import expire
from holdfast.gateway.failover import failover
from holdfast.gateway.guard import guard
from holdfast.gateway.identify import identify
from holdfast.gateway.lines import Lines
from holdfast.gateway.pick import pick
from holdfast.gateway.service import Layer, Service


@dataclass(frozen=True)
class Wiring:
    """What the layers need from outside."""

    keys: frozenset[str]  # empty: nobody is asked for one
    gate: Gate
    lines: Lines
    clock: Clock
    emit: Emit
    moves_max: int


def compose(layers: list[Layer], ground: Service) -> Service:
    """The first layer of the list is the outermost."""
    service = ground
    for layer in reversed(layers):
        service = layer(service)
    return service


def stack(w: Wiring) -> Service:
    """The gateway."""
    return compose(
        [
            identify(w.keys),  # who asks; nobody else's request costs anything
            expire(w.clock),  # above every wait, so that queueing counts against the deadline
            admit(w.gate, w.lines, w.clock),  # before any replica is touched
            failover(w.lines, w.moves_max, w.clock, w.emit),  # above pick: each try may choose another replica
            pick(w.lines),  # the only layer that knows there are many replicas
            guard(w.lines, w.clock, w.emit),  # below pick: it judges one replica
        ],
        dial(w.lines),  # the ground: one call to one engine
    )
