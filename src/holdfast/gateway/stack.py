"""The gateway's table of contents: one visible list, read downwards. The request falls, the answer rises.

A Layer wraps a Service and obeys one policy. Order is meaning; each line says why it stands where it does.
"""

from dataclasses import dataclass
from functools import partial

from holdfast.domain.event import Emit
from holdfast.domain.ports import Clock
from holdfast.gateway.admit import admit
from holdfast.gateway.dial import dial
from holdfast.gateway.failover import failover
from holdfast.gateway.gate import Gate
from holdfast.gateway.guard import guard
from holdfast.gateway.identify import identify
from holdfast.gateway.journal import Journal
from holdfast.gateway.lane import Turns
from holdfast.gateway.lines import Lines, making
from holdfast.gateway.pick import pick
from holdfast.gateway.quarantine import Quarantine, refuse_condemned
from holdfast.gateway.record import record
from holdfast.gateway.service import Layer, Service
from holdfast.gateway.think import EndOf, think
from holdfast.policy.retry_budget import RetryBudget


@dataclass(frozen=True)
class Wiring:
    """What the layers need from outside."""

    gate: Gate
    lines: Lines
    clock: Clock
    emit: Emit
    moves_max: int
    moving: "Moving | None" = None  # None: as `alone_here` makes it
    journal: Journal | None = None  # None: answers do not outlive this worker
    thinking_end: EndOf | None = None  # None: thinking is never bounded


@dataclass(frozen=True)
class Moving:
    """What keeps failing over from becoming the second disaster: who is on trial, whose turn it is, what moves may cost."""

    quarantine: Quarantine
    turns: Turns
    budget: RetryBudget


def alone_here(lines: Lines, clock: Clock, emit: Emit) -> Moving:
    """The same for one worker with nobody beside it, by the default settings."""
    quarantine = Quarantine(lines, clock, clock.now, emit)
    return Moving(quarantine, Turns(lines, quarantine, clock), RetryBudget())


def compose(layers: list[Layer], ground: Service) -> Service:
    """The first layer of the list is the outermost."""
    service = ground
    for layer in reversed(layers):
        service = layer(service)
    return service


def stack(w: Wiring) -> Service:
    """The gateway."""
    moving = w.moving or alone_here(w.lines, w.clock, w.emit)
    return compose(
        [
            identify(w.gate.tenants),  # who asks; nobody else's request costs anything
            refuse_condemned(moving.quarantine),  # before it takes anybody's place
            admit(w.gate, w.lines),  # before any replica is touched; the deadline is kept here, above every wait
            *([record(w.journal)] if w.journal else ()),  # of what was let in; moves below it are none of its business
            *(
                [think(w.thinking_end, partial(making, w.lines))] if w.thinking_end else ()
            ),  # it adds tokens like any others
            failover(  # above pick: each try may choose another replica
                w.lines, w.moves_max, w.clock, w.emit, quarantine=moving.quarantine, budget=moving.budget
            ),
            pick(w.lines, moving.turns),  # the only layer that knows there are many replicas
            guard(w.lines, w.clock, w.emit),  # below pick: it judges one replica
        ],
        dial(w.lines),  # the ground: one call to one engine
    )
