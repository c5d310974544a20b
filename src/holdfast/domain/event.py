"""Every event there is. Who emits does not know who listens: app connects them."""

from collections.abc import Callable

from msgspec import Struct


class Event(Struct, frozen=True, tag_field="event", kw_only=True):
    """`why` is one sentence that an operator can read aloud. `at` is unix seconds where a hand stamped it, else 0."""

    why: str
    at: float = 0.0


class AnswerMoved(Event, frozen=True, tag="answer_moved", kw_only=True):
    """An answer left a replica. `token` is how many tokens the client already had."""

    generation: str
    replica: str
    token: int


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


class ReplicaAiling(Event, frozen=True, tag="replica_ailing", kw_only=True):
    """Found in a replica that runs and answers. `kind`: wedged, slow, wrong, bloated."""

    replica: str
    kind: str


class EjectionFrozen(Event, frozen=True, tag="ejection_frozen", kw_only=True):
    """Too many replicas are under suspicion at once: nobody else is taken out, and somebody should look."""

    suspects: int
    replicas: int


class ReplicaDrained(Event, frozen=True, tag="replica_drained", kw_only=True):
    """Its streams have moved and its process may stop."""

    replica: str
    streams: int


class RequestSuspected(Event, frozen=True, tag="request_suspected", kw_only=True):
    """It was in flight when an engine died of its own fault: it continues alone on its next replica."""

    generation: str
    fingerprint: str


class RequestCondemned(Event, frozen=True, tag="request_condemned", kw_only=True):
    """It has cost two engines: refused from now on, until `until_unix_s`."""

    generation: str
    fingerprint: str
    until_unix_s: float


class StreamResumed(Event, frozen=True, tag="stream_resumed", kw_only=True):
    """A client came back for an answer. `token`: how many tokens it had; `owner`: the worker that wrote it before."""

    generation: str
    token: int
    owner: str


class AnswerFenced(Event, frozen=True, tag="answer_fenced", kw_only=True):
    """This worker was late and found that another one has taken an answer over."""

    generation: str


class JournalOff(Event, frozen=True, tag="journal_off", kw_only=True):
    """The journal can't be written: serving goes on, but answers do not outlive this worker. The header says so."""


class JournalOn(Event, frozen=True, tag="journal_on", kw_only=True):
    """The journal can be written (again)."""


class BufferFull(Event, frozen=True, tag="buffer_full", kw_only=True):
    """A client reads too slowly for the bytes that are kept for it, or all of them together are over the limit."""

    generation: str
    held_bytes: int


class DescriptorsLow(Event, frozen=True, tag="descriptors_low", kw_only=True):
    """So many file descriptors are open that new connections are refused."""

    open: int
    limit: int


class CertificateLoaded(Event, frozen=True, tag="certificate_loaded", kw_only=True):
    """New connections are met with this certificate from now on."""

    ends_unix_s: float


class CertificateKept(Event, frozen=True, tag="certificate_kept", kw_only=True):
    """The files changed, but what is in them now can't be used: the certificate before it is used on."""


class CertificateEnding(Event, frozen=True, tag="certificate_ending", kw_only=True):
    """The certificate ends within two weeks, or has ended. Told once a day."""

    ends_unix_s: float


class HostAiling(Event, frozen=True, tag="host_ailing", kw_only=True):
    """Half of this host's replicas or more are in quarantine: the common cause is looked for in the machine."""

    quarantined: int
    replicas: int


class UpgradeBegun(Event, frozen=True, tag="upgrade_begun", kw_only=True):
    """Every process older than this epoch is replaced, one after the other."""

    epoch: int


class UpgradeEnded(Event, frozen=True, tag="upgrade_ended", kw_only=True):
    epoch: int


class BreakerOpened(Event, frozen=True, tag="breaker_opened", kw_only=True):
    replica: str


class BreakerClosed(Event, frozen=True, tag="breaker_closed", kw_only=True):
    """A trial call went well: the replica gets work again."""

    replica: str


class RungChanged(Event, frozen=True, tag="rung_changed", kw_only=True):
    """The site degrades further, or gives something back. Rung 0 is full service; the names are in policy/ladder.py."""

    before: int
    after: int
    name: str


class SharingLost(Event, frozen=True, tag="sharing_lost", kw_only=True):
    """The store that several machines share rates through can't be reached: each keeps to its share."""


class SharingFound(Event, frozen=True, tag="sharing_found", kw_only=True):
    """It can be reached (again)."""


class SiteScaled(Event, frozen=True, tag="site_scaled", kw_only=True):
    """Another number of replicas is wanted from now on."""

    before: int
    after: int


class ReplicaWarm(Event, frozen=True, tag="replica_warm", kw_only=True):
    """It is loaded and stands by."""

    replica: str


class ReplicaCalled(Event, frozen=True, tag="replica_called", kw_only=True):
    """It stood by and serves now."""

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


class KeysChanged(Event, frozen=True, tag="keys_changed", kw_only=True):
    """A worker goes by another version of the key file from now on; `live` keys open something."""

    version: int
    live: int


class KeysStale(Event, frozen=True, tag="keys_stale", kw_only=True):
    """The key file is gone, damaged or an old one: a worker goes on with the keys that it knows."""


class SelfDoubted(Event, frozen=True, tag="self_doubted", kw_only=True):
    """The observer found itself unfit to judge (it was late, or everybody was silent at once), and judged nobody."""

    observer: str


Emit = Callable[[Event], None]
