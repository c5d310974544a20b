"""The settings: one typed tree, every key optional, every key described here and nowhere else.

settings_text.py reads TOML into it and writes the page of all keys.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from holdfast.domain.settings_door import Gateway
from holdfast.domain.settings_engine import EngineSettings
from holdfast.domain.settings_kinds import Port, Seconds
from holdfast.domain.settings_overload import Admission, Balance, Degradation, Scaling, Smaller, Tenant


class BadSettings(ValueError):
    """The settings can't be used: the sentence names the source, the section, the key and the fix."""


class Site(Struct, frozen=True, forbid_unknown_fields=True):
    """What this site is called, and where it keeps its state."""

    name: Annotated[
        str,
        Meta(
            pattern=r"^[a-z0-9][a-z0-9-]{0,31}$",
            description="Name of the site: lower-case letters, digits, dashes. One supervisor runs per site.",
        ),
    ] = "default"
    state_dir: Annotated[
        str,
        Meta(
            description="Folder for run files, logs, sockets and events. Empty: `$XDG_STATE_HOME/holdfast/<name>`, "
            "else `~/.local/state/holdfast/<name>`."
        ),
    ] = ""


class Model(Struct, frozen=True, forbid_unknown_fields=True):
    """What answers."""

    path: Annotated[str, Meta(description="Model folder in Hugging Face format. Empty: the model that ships.")] = ""
    name: Annotated[
        str, Meta(description="Name that clients ask for. Empty: the folder's name, or `pearl` for the shipped model.")
    ] = ""
    aliases: Annotated[
        tuple[str, ...], Meta(description="Other names for it, under which it does not think unless asked to.")
    ] = ("deepseek-chat",)
    aliases_thinking: Annotated[
        tuple[str, ...], Meta(description="Other names for it, under which it thinks unless asked not to.")
    ] = ("deepseek-reasoner",)


class ReplicaSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The engine processes."""

    count: Annotated[int, Meta(ge=0, le=64, description="How many replicas run.")] = 2
    engine: Annotated[
        Literal["embedded", "scripted", "vllm", "sglang", "triton", "llamacpp", "openai"],
        Meta(
            description="Who computes: `embedded` is Holdfast's own engine; `scripted` gives made-up tokens at a fixed pace, for "
            "drills; the others are programs of somebody else, see [engine]; `openai` is any server of that API, by url."
        ),
    ] = "embedded"
    url: Annotated[
        str,
        Meta(
            description="Engines that run already, commas between, dealt out to the replicas in turn: `http://HOST:PORT`, for "
            "Triton `grpc://HOST:PORT`. Holdfast uses them, and neither starts nor stops them. Empty: it runs the engine itself."
        ),
    ] = ""
    slots: Annotated[int, Meta(ge=1, le=1024, description="Answers that one replica generates at the same time.")] = 32
    context_tokens_max: Annotated[
        int,
        Meta(ge=16, description="Longest prompt plus answer, in tokens; the model's own limit counts if it is lower."),
    ] = 2048
    queue_max: Annotated[
        int, Meta(ge=0, description="Answers that may wait inside one replica; beyond it the replica refuses at once.")
    ] = 128
    prefill_chunk_tokens: Annotated[
        int, Meta(ge=1, description="Prompt tokens computed in one step; smaller keeps other answers moving.")
    ] = 256
    dtype: Annotated[
        Literal["fp32", "bf16"],
        Meta(description="Number format of the weights. `fp32` keeps continued answers exact."),
    ] = "fp32"
    devices: Annotated[
        str,
        Meta(description="Where replicas compute: `cpu`, or GPUs such as `cuda:0,cuda:1`, dealt out to them in turn."),
    ] = "cpu"
    threads: Annotated[int, Meta(ge=1, le=256, description="CPU threads of one replica.")] = 1
    drain_s: Annotated[
        Seconds, Meta(description="A replica that is told to leave is killed after so many seconds.")
    ] = 30.0
    health_port: Annotated[
        int,
        Meta(
            ge=0,
            le=65535,
            description="First TCP port, on loopback, of the replicas' gRPC health service; replica n listens on this "
            "plus n. 0: none.",
        ),
    ] = 0
    batch_window_ms: Annotated[
        float,
        Meta(
            ge=0,
            le=1000,
            description="An idle replica waits so long for more answers that nobody reads as a stream, before it begins them "
            "together. Streams never wait.",
        ),
    ] = 15.0
    token_ms: Annotated[
        float, Meta(ge=0, le=60_000, description="Scripted engine only: milliseconds between two steps.")
    ] = 5.0


class Request(Struct, frozen=True, forbid_unknown_fields=True):
    """What one request may ask for."""

    deadline_s: Annotated[Seconds, Meta(description="An answer must be complete within so many seconds.")] = 600.0
    max_tokens_default: Annotated[
        int, Meta(ge=1, description="Longest answer, in tokens, when the request names none.")
    ] = 1024


class Failover(Struct, frozen=True, forbid_unknown_fields=True):
    """When an answer leaves its replica, and how often."""

    moves_max: Annotated[int, Meta(ge=0, le=100, description="How often one answer may change replicas.")] = 8
    silence_floor_s: Annotated[
        Seconds, Meta(description="A replica that was silent for less than this is never suspected, in seconds.")
    ] = 0.35
    silence_cap_s: Annotated[
        Seconds, Meta(description="A replica that was silent for longer than this is always suspected, in seconds.")
    ] = 20.0
    silence_factor: Annotated[
        float,
        Meta(ge=1, description="Until rare gaps are known: patience in multiples of the gap that 99 % stay below."),
    ] = 6.0
    silence_unlearned_s: Annotated[
        Seconds, Meta(description="The limit, in seconds, for a replica whose usual gaps are not known yet.")
    ] = 2.0
    stream_floor_s: Annotated[
        Seconds, Meta(description="One stream is not moved for less silence than this while its replica serves others.")
    ] = 2.0
    first_token_s: Annotated[
        Seconds, Meta(description="How long one stream may wait for its first token while its replica serves others.")
    ] = 10.0
    prefill_s_per_token: Annotated[
        float, Meta(ge=0, le=10, description="Further patience for each prompt token of one step, in seconds.")
    ] = 0.001
    lane_tokens: Annotated[
        int,
        Meta(ge=1, description="Tokens of moved answers that one replica may be reading again at the same time."),
    ] = 16384
    budget_share: Annotated[
        float,
        Meta(
            gt=0, le=10, description="Second and later moves of an answer may cost this share of the tokens admitted."
        ),
    ] = 0.2


class Journal(Struct, frozen=True, forbid_unknown_fields=True):
    """What lets an answer outlive the worker that writes it: request and tokens, kept in memory-backed files while it lasts."""

    on: Annotated[
        bool, Meta(description="Whether answers are journalled; without it a lost connection loses its answer.")
    ] = True
    dir: Annotated[
        str,
        Meta(description="Folder of the journal; it should lie in memory. Empty: a folder of this site in `/dev/shm`."),
    ] = ""
    bytes_max: Annotated[
        int, Meta(ge=1024 * 1024, description="Largest journal of one worker; the oldest ended answers leave first.")
    ] = 128 * 1024 * 1024
    grace_s: Annotated[Seconds, Meta(description="An ended answer can be asked for again for so many seconds.")] = 60.0
    linger_s: Annotated[
        Seconds,
        Meta(description="After a lost connection an answer that can be resumed is generated on for so many seconds."),
    ] = 10.0


class Poison(Struct, frozen=True, forbid_unknown_fields=True):
    """Requests that kill engines."""

    keep_s: Annotated[
        Seconds, Meta(description="A request that has cost two engines is refused for so many seconds.")
    ] = 3600.0
    clear_tokens: Annotated[
        int, Meta(ge=1, le=1000, description="A suspect that has made so many tokens on its next replica is cleared.")
    ] = 2


class Guard(Struct, frozen=True, forbid_unknown_fields=True):
    """What one process may take before it is relieved of its work."""

    replica_mib_max: Annotated[
        int, Meta(ge=0, description="A replica with more resident memory is drained and started anew. 0: no limit.")
    ] = 0
    gateway_mib_max: Annotated[
        int, Meta(ge=0, description="A gateway worker with more resident memory is replaced. 0: no limit.")
    ] = 2048
    stream_bytes_max: Annotated[
        int, Meta(ge=4096, description="Unread bytes that a worker keeps for one client; the answer waits beyond that.")
    ] = 64 * 1024
    core_dumps: Annotated[
        bool,
        Meta(description="Let a gateway worker or replica that crashes leave a core file: prompts and keys are in it."),
    ] = False
    buffers_bytes_max: Annotated[
        int, Meta(ge=65536, description="Unread bytes of all clients of one worker; beyond it the slowest are cut.")
    ] = 256 * 1024 * 1024
    descriptors_share: Annotated[
        float, Meta(gt=0, le=1, description="New connections are refused above this share of the descriptor limit.")
    ] = 0.8


class Canary(Struct, frozen=True, forbid_unknown_fields=True):
    """Questions with known answers, put to replicas in service."""

    every_s: Annotated[Seconds, Meta(description="Seconds between two canaries with a known answer.")] = 300.0
    tokens: Annotated[int, Meta(ge=1, le=256, description="Tokens of one canary's answer.")] = 16
    wrong_max: Annotated[int, Meta(ge=1, description="Wrong answers in a row that condemn a replica.")] = 2
    idle_s: Annotated[
        Seconds, Meta(description="A replica without work for so many seconds is asked for one token now and then.")
    ] = 10.0
    idle_every_s: Annotated[Seconds, Meta(description="Seconds between two such questions.")] = 15.0


class Ailing(Struct, frozen=True, forbid_unknown_fields=True):
    """When a replica that runs and answers is taken out all the same."""

    wedged_s: Annotated[
        Seconds, Meta(description="No step for so many seconds while there is work, and it is killed.")
    ] = 5.0
    wedged_cap_s: Annotated[
        Seconds,
        Meta(description="The same for engines whose own steps are slow: five of them, at most so many seconds."),
    ] = 60.0
    slow_z: Annotated[
        float, Meta(gt=0, description="Slow: this many deviations (modified z-score) above its peers at equal load.")
    ] = 3.5
    slow_s: Annotated[
        Seconds, Meta(description="A replica that was slow for so many seconds is drained and renewed.")
    ] = 60.0


class BreakerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """When a gateway worker stops sending to a replica that fails."""

    errors_share: Annotated[
        float, Meta(gt=0, le=1, description="Share of attempts that fail in one way above which the breaker opens.")
    ] = 0.05
    window_s: Annotated[Seconds, Meta(description="Over how many seconds they are counted.")] = 30.0
    volume_min: Annotated[int, Meta(ge=1, description="Fewer attempts than this within the window prove nothing.")] = 20

    failures_max: Annotated[int, Meta(ge=1, description="Failures in a row that open the breaker.")] = 5
    open_s: Annotated[Seconds, Meta(description="Seconds before the first trial call after it opened.")] = 1.0
    open_max_s: Annotated[
        Seconds, Meta(description="The wait doubles with each failed trial, up to so many seconds.")
    ] = 30.0


class Restart(Struct, frozen=True, forbid_unknown_fields=True):
    """How fast a process that died comes back, and when we stop trying."""

    free: Annotated[int, Meta(ge=0, description="Restarts without any delay but `settle_s`.")] = 1
    settle_s: Annotated[
        float,
        Meta(ge=0, le=60, description="Seconds that a replica's restart leaves to the answers it has left behind."),
    ] = 0.5
    first_delay_s: Annotated[
        Seconds, Meta(description="Delay before the next restart, in seconds; it doubles with each death.")
    ] = 10.0
    delay_max_s: Annotated[Seconds, Meta(description="Longest delay before a restart, in seconds.")] = 300.0
    healthy_reset_s: Annotated[
        Seconds, Meta(description="After so many seconds of service earlier deaths are forgiven.")
    ] = 600.0
    deaths_max: Annotated[int, Meta(ge=1, description="So many deaths within the window quarantine the process.")] = 3
    deaths_window_s: Annotated[
        Seconds, Meta(description="The window, in seconds; never less than three times what the replica takes to load.")
    ] = 600.0
    start_s: Annotated[
        Seconds,
        Meta(
            description="A process that is not ready after so many seconds is killed and counted as dead; where the start of a "
            "replica tells how far it has come, so many seconds after it last did."
        ),
    ] = 300.0


class ProbeSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How the supervisor looks at its replicas."""

    every_s: Annotated[Seconds, Meta(description="Seconds between two pings of one replica.")] = 0.5
    silent_s: Annotated[
        Seconds,
        Meta(
            description="A replica that answered no ping for so many seconds is killed and started anew; one with an engine of "
            "somebody else not before 15 s. Its answers move long before."
        ),
    ] = 5.0
    worker_silent_s: Annotated[
        Seconds, Meta(description="A gateway worker that showed no sign of life for so many seconds is killed.")
    ] = 3.0


class Control(Struct, frozen=True, forbid_unknown_fields=True):
    """The control plane: what the site looks like. Serving goes on without it."""

    host: Annotated[
        str,
        Meta(
            description="Address of the control plane. Beyond this machine it needs an admin key (`holdfast key create NAME "
            "--scope admin`) or `tls_client_ca`."
        ),
    ] = "127.0.0.1"
    port: Annotated[Port, Meta(description="TCP port of the control plane.")] = 8001
    health_port: Annotated[
        int,
        Meta(ge=0, le=65535, description="TCP port of the site's gRPC health service, on the same address. 0: none."),
    ] = 8002
    tls_cert: Annotated[
        str, Meta(description="PEM file with the certificate and those between it and its root. Empty: plain HTTP.")
    ] = ""
    tls_key: Annotated[str, Meta(description="PEM file with the key of that certificate.")] = ""
    tls_client_ca: Annotated[
        str, Meta(description="PEM file of roots: clients must then show a certificate that one of them has signed.")
    ] = ""


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that an operator may choose."""

    site: Site = Site()
    model: Model = Model()
    replica: ReplicaSettings = ReplicaSettings()
    engine: EngineSettings = EngineSettings()
    gateway: Gateway = Gateway()
    admission: Admission = Admission()
    tenants: dict[str, Tenant] = {}
    balance: Balance = Balance()
    degradation: Degradation = Degradation()
    smaller: Smaller = Smaller()
    scaling: Scaling = Scaling()
    request: Request = Request()
    failover: Failover = Failover()
    journal: Journal = Journal()
    poison: Poison = Poison()
    guard: Guard = Guard()
    canary: Canary = Canary()
    ailing: Ailing = Ailing()
    breaker: BreakerSettings = BreakerSettings()
    restart: Restart = Restart()
    probe: ProbeSettings = ProbeSettings()
    control: Control = Control()
