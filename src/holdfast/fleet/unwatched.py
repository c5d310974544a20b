"""What the files still tell of a site that nobody supervises: its last view, with each process looked at once more."""

from collections.abc import Callable, Iterable

from msgspec import structs

from holdfast.domain.ports import Sighting
from holdfast.domain.replica import ReplicaState
from holdfast.domain.site import ProcessView, SiteView


def unwatched(view: SiteView, births: Iterable[Sighting], age_s: Callable[[Sighting], float | None]) -> SiteView:
    """The view as it is now. `age_s` is how long a process on record has run, None when it does not run any more."""
    ages = {birth.name: (birth.pid, age_s(birth)) for birth in births}

    def checked(one: ProcessView) -> ProcessView:
        pid, age = ages.get(one.name, (0, None))
        if age is not None:
            return structs.replace(one, pid=pid, uptime_s=round(age, 1))
        if one.state is ReplicaState.QUARANTINED:
            return one
        return structs.replace(
            one, state=ReplicaState.DOWN, pid=0, uptime_s=0.0, load=None, stage="", away=False, why="it does not run"
        )

    return structs.replace(view, supervisor_pid=0, processes=tuple(checked(one) for one in view.processes))
