"""Standings: what a supervisor remembers of each process, what it sees of it, and the steps that it can take.

The nouns that the rules of supervision speak of. The rules themselves are in policy/supervision.py (what comes first),
judging.py (what has happened to a process), standby.py (who of the loaded serves), leaving.py (who has to go) and escalation.py
(when trying is over).
"""

from msgspec import Struct, structs

from holdfast.domain.ailment import Ailment
from holdfast.domain.procedure import Step
from holdfast.domain.release import Release
from holdfast.domain.replica import AWAY, Happening, Load, ReplicaState, move
from holdfast.domain.roster import Roster
from holdfast.domain.settings import Restart
from holdfast.domain.settings_overload import Scaling
from holdfast.domain.site import Role
from holdfast.domain.wish import Wishes
from holdfast.policy.restart_intensity import Death
from holdfast.policy.scaling import Wanted

LIVE = (
    ReplicaState.STARTING,
    ReplicaState.SERVING,
    ReplicaState.WARM,
    ReplicaState.SUSPECT,
    ReplicaState.DRAINING,
)
UP = (ReplicaState.SERVING, ReplicaState.WARM)
STOP_ORDER = (Role.GATEWAY, Role.REPLICA, Role.CONTROL)
DEATHS_KEPT = 16


class Rules(Struct, frozen=True, kw_only=True):
    """The settings that supervision goes by. Seconds.

    `count`: how many replicas serve to begin with; None: all that are wanted. `warm` more stand by.
    """

    restart: Restart = Restart()
    silent_s: float = 5.0
    worker_silent_s: float = 3.0
    late_s: float = 1.0  # a look that comes later than this after its moment is unfit to judge
    replica_grace_s: float = 30.0
    gateway_grace_s: float = 30.0
    control_grace_s: float = 5.0
    count: int | None = None
    warm: int = 0
    scaling: Scaling = Scaling()
    mixed: bool = False  # engines of several kinds on the same weights may serve together

    def grace_s(self, role: Role) -> float:
        """How long one that was told to leave may take."""
        return {Role.GATEWAY: self.gateway_grace_s, Role.REPLICA: self.replica_grace_s}.get(role, self.control_grace_s)


class Fact(Struct, frozen=True, kw_only=True):
    """What is seen of a process now. A process that does not exist has `alive` False and no `exit_code`."""

    alive: bool = False
    pid: int = 0
    exit_code: int | None = None
    last_words: str = ""  # last line that a dead one wrote to its log
    boot: str = ""
    address: str = ""
    ready: bool = False  # its run file says so, and a replica has answered too
    stage: str = ""  # how far the start of a replica has come, by its own word
    engine: str = ""  # a foreign engine's build, and what it can do
    device: str = ""  # where a foreign engine computes, by its replica's own word
    away: bool = False  # likewise, that its engine runs elsewhere and has not been there for a while
    heard_at: float | None = None  # replicas: when a ping was last answered; gateway workers: their last pulse
    load: Load | None = None
    release: Release | None = None
    box: str = ""  # path of its black box
    epoch: int = 0  # the upgrade that it was started in
    ailment: Ailment | None = None


class Standing(Struct, frozen=True, kw_only=True):
    """One process, as its supervisor remembers it. Lost with the supervisor, and found again by looking."""

    name: str
    role: Role
    wanted: bool = True
    device: str = ""
    model: str = ""  # which model a replica serves: empty for the site's own, else the name of the smaller one
    state: ReplicaState = ReplicaState.DOWN
    since: float = 0.0  # when it came into this state
    why: str = ""
    started_at: float = 0.0
    served_at: float | None = None  # when this life became ready
    announced_at: float | None = None  # when its run file first said that it is ready: from then on it can be asked
    staged_at: float = 0.0  # when its start last came further
    load_s: float = 0.0  # how long the slowest start took
    deaths: tuple[Death, ...] = ()
    restarts: int = 0
    told_at: float | None = None
    killed_at: float | None = None
    blamed: bool = False  # ended for what was suspected of it: that counts as a death, and against the half rule
    streams: int = 0  # how many it had when it was told to leave
    pardons: int = 0  # how many of Wishes.pardons have been granted
    reset_at: float | None = None  # when its device was last reset for it
    fact: Fact = Fact()

    def named(self) -> str:
        return f"{self.name} (pid {self.fact.pid})" if self.fact.pid else self.name


class Seen(Struct, frozen=True, kw_only=True):
    """The world. `trusted_since`: silences are measured from here at the earliest. `stopping`: why the site must end.

    `epoch` is the upgrade that the supervisor itself belongs to; `resettable` tells whether devices can be reset here. `serve`:
    how many replicas of the site's own model should serve, None for all of them; `warm` more stand by. `scaling`: what the load
    asks for, None while it is not asked.
    """

    standings: tuple[Standing, ...]
    roster: Roster = Roster()
    wishes: Wishes = Wishes()
    epoch: int = 0
    resettable: bool = False
    stopping: str = ""
    failed: bool = False  # it stops because it could not come up
    late_s: float = 0.0
    trusted_since: float = 0.0
    doubting_since: float | None = None
    serve: int | None = None
    warm: int = 0
    scaling: Wanted | None = None

    @property
    def serve_count(self) -> int:
        """How many replicas of the site's own model should serve."""
        return sum(1 for one in self.replicas() if one.wanted) if self.serve is None else self.serve

    def replicas(self, model: str = "") -> list[Standing]:
        """Those that serve this model; the site's own by default."""
        return [one for one in self.standings if one.role is Role.REPLICA and one.model == model]

    def of(self, role: Role) -> list[Standing]:
        return [one for one in self.standings if one.role is role]


class Start(Step, frozen=True, kw_only=True):
    name: str


class Tell(Step, frozen=True, kw_only=True):
    """SIGTERM, and SIGKILL after the grace."""

    name: str
    grace_s: float


class Kill(Step, frozen=True, kw_only=True):
    """SIGKILL. `suspected`: for what was guessed of it, which the half rule of policy/ejection.py counts."""

    name: str
    suspected: bool = False


class Note(Step, frozen=True, kw_only=True):
    """Take down what happened to a process. `blamed`: it is told to leave for a fault of its own."""

    name: str
    happening: Happening
    blamed: bool = False


class Condemn(Step, frozen=True, kw_only=True):
    """Write down that this replica must not run until somebody has looked at it."""

    name: str


class Refresh(Step, frozen=True, kw_only=True):
    """Wish for an upgrade ourselves: all workers are replaced, make before break."""

    epoch: int


class Reset(Step, frozen=True, kw_only=True):
    """Reset the device of a replica that does not come up: the last thing to try before it is given up."""

    name: str
    device: str


class Scale(Step, frozen=True, kw_only=True):
    """From now on so many replicas should serve."""

    count: int


class Forget(Step, frozen=True, kw_only=True):
    """Neither wanted nor there."""

    name: str


class Publish(Step, frozen=True, kw_only=True):
    roster: Roster


class Doubt(Step, frozen=True, kw_only=True):
    """Judge nobody by what was (not) heard before now. `all_silent` tells which of the two doubts it is."""

    all_silent: bool


class Renew(Step, frozen=True, kw_only=True):
    """An upgrade begins with ourselves: become a new supervisor in the same process."""

    epoch: int


class Finish(Step, frozen=True, kw_only=True):
    """Nothing older than this upgrade runs any more."""

    epoch: int


class Halt(Step, frozen=True, kw_only=True):
    """This site can't come up: stop it, and say why."""


def noted(one: Standing, note: Note, now: float, jitter: float) -> Standing:
    """The standing after something has happened. `jitter` in [0, 1) is written into a death.

    Raises:
        IllegalMove: the table does not know this move.
    """
    one = structs.replace(one, state=move(one.state, note.happening), since=now, why=note.why)
    match note.happening:
        case Happening.STARTED:
            restarts = one.restarts + (1 if one.deaths else 0)
            return structs.replace(one, started_at=now, served_at=None, told_at=None, killed_at=None, restarts=restarts)
        case Happening.READY | Happening.RESTED if one.served_at is None:
            load_s = max(one.load_s, now - one.started_at, 0.001)
            return structs.replace(one, served_at=now, load_s=load_s, blamed=False)
        case Happening.MOVED if one.served_at is None:  # an adopted one, heard for the first time
            return structs.replace(one, served_at=now)
        case Happening.TOLD_TO_LEAVE:
            load = one.fact.load
            return structs.replace(one, blamed=note.blamed, streams=load.running + load.queued if load else 0)
        case Happening.PARDONED:
            return structs.replace(one, deaths=(), reset_at=None)
        case Happening.DIED if one.fact.exit_code == AWAY:  # nobody's death: it may be that for as often as it likes
            return structs.replace(one, served_at=None)
        case Happening.DIED if one.told_at is None or one.blamed:
            served_s = 0.0 if one.served_at is None else now - one.served_at
            death = Death(at=now, served_s=served_s, why=note.why, jitter=jitter)
            return structs.replace(one, deaths=(*one.deaths, death)[-DEATHS_KEPT:], served_at=None)
    return one
