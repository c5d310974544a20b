"""Where a bug can be planted: the parts of a simulated site that drill/planted.py may replace. Here all are as they should be."""

from collections.abc import Callable

from msgspec import structs

from holdfast.domain.event import Event
from holdfast.domain.ports import Clock, Shelf
from holdfast.domain.release import Exactness, Release
from holdfast.fleet.supervise import Hands, Supervise, Want
from holdfast.gateway.archive import Archive
from holdfast.gateway.journal import Journal
from holdfast.gateway.stack import Wiring
from holdfast.gateway.watch import Watch
from holdfast.policy.supervision import Rules
from holdfast.sim.line import RELEASE, SimLine
from holdfast.sim.shelf import SimShelves


class Plant:
    """The real parts. `kinds`: the releases of the replicas, in turn; of one kind where there are none."""

    kinds: tuple[Release, ...] = ()
    line_of: type[SimLine] = SimLine
    watch_of: type[Watch] = Watch

    def journal(
        self, shelf: Shelf, archive: Archive, owner: str, clock: Clock, emit: Callable[[Event], None]
    ) -> Journal:
        """One worker's journal."""
        return Journal(shelf, archive, owner, clock, emit)

    def wiring(self, w: Wiring) -> Wiring:
        """What one worker's layers get."""
        return w

    def supervise(self, wants: list[Want], rules: Rules, hands: Hands, epoch: int) -> Supervise:
        """The supervisor."""
        return Supervise(wants, rules, hands, epoch)

    def shelves(self) -> SimShelves:
        """The machine's shelf."""
        return SimShelves()


class Mixed(Plant):
    """A site with engines of two kinds on the same weights: greedy answers may cross, others must end as they began."""

    kinds = (
        structs.replace(RELEASE, weights="w", greedy_across=True),
        Release(model="sim", engine="other", digest="01", exactness=Exactness.EXACT, weights="w", greedy_across=True),
    )
