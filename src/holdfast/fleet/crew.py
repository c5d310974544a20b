"""The crew: the processes of a site that should run at this moment, out of all that could.

Workers and control plane always should. How many replicas, and which, is for policy/muster.py to say, by an operator's word, by
the load (fleet/demand.py, policy/scaling.py) or by the settings. It remembers only what the load was; the number itself is kept
in the wishes, so that the next supervisor goes on with it.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from holdfast.domain.ports import Child
from holdfast.domain.site import Role
from holdfast.domain.wish import Wishes
from holdfast.fleet.demand import Demands, Views
from holdfast.policy.muster import Member, Mustered, muster
from holdfast.policy.scaling import Scaler, Wanted
from holdfast.policy.standing import Rules, Standing

SMALLER = "smaller"  # replicas of the smaller model are called smaller-0, smaller-1, ...


class Want(Struct, frozen=True, kw_only=True):
    """A process that should run. `device`: where a replica computes; `model`: the name of the smaller one, if it serves that."""

    role: Role
    child: Child
    device: str = ""
    model: str = ""


class Crew:
    """`wants` holds every replica that could be wanted; without `rules.count` all of them are."""

    def __init__(self, wants: Iterable[Want], rules: Rules, read_views: Views) -> None:
        self.wants = {want.child.name: want for want in wants}
        self._rules = rules
        scaled = [want for want in self.wants.values() if want.role is Role.REPLICA and not want.model]
        self._pool = [Member(want.child.name, want.device) for want in scaled]
        self._always = [name for name in self.wants if name not in {one.name for one in self._pool}]
        self._demands, self._scaler = Demands(read_views), Scaler(rules.scaling)

    def muster(self, standings: Mapping[str, Standing], wishes: Wishes) -> Mustered | None:
        """Which replicas should run, and how many should serve; None where all should."""
        return None if self._rules.count is None else muster(self._pool, standings, wishes, self._rules)

    def names(self, mustered: Mustered | None) -> list[str]:
        """Everything that should run, in the order in which it starts."""
        if mustered is None:
            return list(self.wants)
        return [one.name for one in self._pool if one.name in mustered.names] + self._always

    def load_asks(self, standings: Iterable[Standing], serve: int, now: float) -> Wanted | None:
        """How many should serve by the load; None where that is not its to say."""
        if not self._rules.scaling.on or self._rules.count is None:
            return None
        demand = self._demands.look(standings, now)
        if demand is not None:
            self._scaler.look(demand, now)
        return self._scaler.wanted(serve, now)

    def role(self, name: str) -> Role:
        """What a process is for, by its name when nothing else is known of it."""
        if name in self.wants:
            return self.wants[name].role
        if name.startswith(SMALLER):
            return Role.REPLICA
        return next((role for role in Role if name.startswith(role)), Role.CONTROL)

    def model(self, name: str) -> str:
        """Which model a replica serves: empty for the site's own."""
        if name in self.wants:
            return self.wants[name].model
        return SMALLER if name.startswith(SMALLER) else ""

    def device(self, name: str) -> str:
        """Where a replica computes."""
        return self.wants[name].device if name in self.wants else ""
