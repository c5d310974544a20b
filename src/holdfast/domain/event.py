"""Every event there is. Nobody below observe knows who listens: they emit, app connects."""

from collections.abc import Callable

from msgspec import Struct


class Event(Struct, frozen=True, tag_field="event", kw_only=True):
    """`why` is one sentence that an operator can read aloud. `at` is unix seconds where a hand stamped it, else 0."""

    why: str
    at: float = 0.0


class ReplicaPicked(Event, frozen=True, tag="replica_picked", kw_only=True):
    generation: str
    replica: str


class AnswerMoved(Event, frozen=True, tag="answer_moved", kw_only=True):
    """An answer left a replica. `token` is how many tokens the client already had."""

    generation: str
    replica: str
    token: int


class AnswerEnded(Event, frozen=True, tag="answer_ended", kw_only=True):
    generation: str
    outcome: str  # ok, gone (client hung up), or the fault's name
    tokens: int
    moves: int


class ReplicaSuspected(Event, frozen=True, tag="replica_suspected", kw_only=True):
    replica: str
    silent_s: float
    streams: int


class ReplicaCleared(Event, frozen=True, tag="replica_cleared", kw_only=True):
    replica: str


class ReplicaJoined(Event, frozen=True, tag="replica_joined", kw_only=True):
    replica: str


class ReplicaLost(Event, frozen=True, tag="replica_lost", kw_only=True):
    replica: str


class BreakerOpened(Event, frozen=True, tag="breaker_opened", kw_only=True):
    replica: str


class RequestRefused(Event, frozen=True, tag="request_refused", kw_only=True):
    status: int


class ProcessStarted(Event, frozen=True, tag="process_started", kw_only=True):
    name: str
    pid: int


class ProcessAdopted(Event, frozen=True, tag="process_adopted", kw_only=True):
    name: str
    pid: int


class ProcessDied(Event, frozen=True, tag="process_died", kw_only=True):
    name: str
    pid: int


class ProcessStopped(Event, frozen=True, tag="process_stopped", kw_only=True):
    name: str
    pid: int


class ProcessQuarantined(Event, frozen=True, tag="process_quarantined", kw_only=True):
    name: str


class ProcessReady(Event, frozen=True, tag="process_ready", kw_only=True):
    name: str
    pid: int


class SiteReady(Event, frozen=True, tag="site_ready", kw_only=True):
    """A gateway listens at `address` and a replica may serve: requests are welcome."""

    address: str


class StepTaken(Event, frozen=True, tag="step_taken", kw_only=True):
    """A procedure acted: its own journal."""

    procedure: str
    step: str


class StepFailed(Event, frozen=True, tag="step_failed", kw_only=True):
    """A procedure's act was refused by the world; it looks again after a while."""

    procedure: str
    step: str


class SettingsStale(Event, frozen=True, tag="settings_stale", kw_only=True):
    """Adopted processes run on with settings that are not today's."""


class SelfDoubted(Event, frozen=True, tag="self_doubted", kw_only=True):
    """The observer found itself unfit to judge (it was late, or everybody was silent at once), and judged nobody."""

    observer: str


Emit = Callable[[Event], None]
