"""The guard judges one replica: it tells the breaker how each attempt ended. Pick reads the breakers' state."""

from collections.abc import AsyncGenerator

from holdfast.domain.event import BreakerOpened, EjectionFrozen, Emit
from holdfast.domain.fault import EngineLost, EngineRefused
from holdfast.domain.ports import Clock
from holdfast.domain.request import Chunk, Generation
from holdfast.gateway.lines import Known, Lines
from holdfast.gateway.service import Layer, Service
from holdfast.policy.breaker import Kept, Opened, Peers, Way


def way_of(fault: EngineLost | EngineRefused, known: Known, generation: Generation, now: float) -> Way | None:
    """In which way the replica has failed; None where it has not: it is full, draining, asked to move, the time was
    up, or the answer alone can't be made again there."""
    if isinstance(fault, EngineRefused):
        load = known.line.last_load
        healthy = known.line.gone or load.draining or load.queued or known.line.in_flight >= load.slots
        return None if healthy else Way.REFUSED
    if fault.planned or fault.unrepeatable or now >= generation.deadline:
        return None
    if fault.died:
        return Way.DIED
    return Way.SILENT if fault.fenced else Way.STREAM


def peers_of(known: Known, lines: Lines) -> Peers:
    """The rest of the site, as the breaker has to know it."""
    everybody = lines.known()
    out = others = 0
    for other in everybody.values():
        if other is not known:
            out += other.breaker.is_open or other.suspected_at is not None
            others += other.may_serve and not other.breaker.is_open
    return Peers(out, lines.replicas or len(everybody), others)


def guard(lines: Lines, clock: Clock, emit: Emit) -> Layer:
    """Keep count of one replica's failures. A full or draining replica is a healthy one, and a client may hang up."""

    def failed(known: Known, way: Way) -> None:
        name, peers = known.place.replica, peers_of(known, lines)
        verdict = known.breaker.failed(way, clock.now(), peers)
        if isinstance(verdict, Opened):
            emit(BreakerOpened(replica=name, why=verdict.why))
            lines.ring()
        elif isinstance(verdict, Kept):
            emit(EjectionFrozen(suspects=peers.out + 1, replicas=peers.replicas, why=f"{name}: {verdict.why}"))

    def layer(inner: Service) -> Service:
        async def service(generation: Generation) -> AsyncGenerator[Chunk, None]:
            known = lines.known().get(generation.replica)
            try:
                chunks = inner(generation)
                try:
                    async for chunk in chunks:
                        if chunk.finish is not None and known is not None:
                            known.breaker.ended(clock.now())
                        yield chunk
                finally:
                    await chunks.aclose()
            except (EngineLost, EngineRefused) as fault:
                way = None if known is None else way_of(fault, known, generation, clock.now())
                if known is not None and way is not None:
                    failed(known, way)
                raise

        return service

    return layer
