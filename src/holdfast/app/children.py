"""The processes of a site, as the settings want them: names, command lines, environments."""

import os
import re
import sys

from msgspec import structs

from holdfast.domain.engine import FOREIGN, EngineKind
from holdfast.domain.ports import Child
from holdfast.domain.settings import BadSettings, Settings
from holdfast.domain.settings_engine import deal, unmixed
from holdfast.domain.site import Role
from holdfast.domain.wish import Wishes
from holdfast.fleet.crew import SMALLER, Want
from holdfast.policy.launch_gpus import gpus_each, on_gpus, turn_of
from holdfast.policy.muster import count
from holdfast.policy.supervision import Rules
from holdfast.policy.wishes import REPLICAS_MAX
from holdfast.store.folder import Folder

LEVERS_ENV = "HOLDFAST_LEVERS"  # folder where scripted replicas open their levers
DEVICE = re.compile(r"cpu|cuda(:\d{1,3})?")
SMALLER_PORTS = 2 * REPLICAS_MAX  # health ports of the smaller model's replicas begin so far behind the others'
ENGINE_LEAVE_S = 25.0  # for a foreign engine to end in its own way, once its replica's answers have
FOREIGN_SILENT_S = (
    15.0  # a step of theirs may be long and counted nowhere, and a new start takes minutes; answers move sooner
)
GATEWAY_GRACE_S = 5.0  # beyond its own drain_s a worker gets so long to close its connections


def _verb(*words: str) -> tuple[str, ...]:
    # -P: the folder that somebody starts us in must not decide which modules a child imports.
    return (sys.executable, "-P", "-m", "holdfast", *words)


def wants(settings: Settings, folder: Folder, epoch: int = 0, replicas: int | None = None) -> list[Want]:
    """The processes of a site, in the order in which they start. `epoch`: the upgrade that they belong to.

    `replicas`: how many replicas could be wanted, for a supervisor that chooses among them; None: as many as run to begin with.

    A worker's name says its upgrade, so that the new one can run beside the old one: gateway-0, then gateway-0.1. Replicas
    keep their names; they are replaced one at a time.

    Raises:
        BadSettings: a device that there can't be.
    """
    gateway = settings.gateway
    numbers = range(begin_with(settings) if replicas is None else replicas)
    found = [_replica(settings, folder, f"replica-{number}", number) for number in numbers]
    if settings.smaller.path:
        # they share the devices with those that run to begin with, going on where these end
        begun = turn_of(settings.replica, settings.engine, begin_with(settings))
        small = [(f"{SMALLER}-{number}", begun + number) for number in range(settings.smaller.count)]
        own = structs.replace(settings, engine=unmixed(settings.engine))
        found += [_replica(own, folder, name, number, settings.smaller.name) for name, number in small]
    for number in range(gateway.workers):
        name = f"gateway-{number}.{epoch}" if epoch else f"gateway-{number}"
        words = ("gateway", "--settings", str(folder.settings), "--name", name)
        found.append(Want(role=Role.GATEWAY, child=_child(folder, name, words)))
    control = _child(folder, "control", ("control", "--settings", str(folder.settings)))
    found.append(Want(role=Role.CONTROL, child=control))
    return [structs.replace(want, child=structs.replace(want.child, epoch=epoch)) for want in found]


def begin_with(settings: Settings) -> int:
    """How many replicas a site begins with: those that serve, and those that stand by."""
    return count(Wishes(), rules_of(settings))[0] + settings.scaling.warm


def pool(settings: Settings) -> int:
    """How many replicas could ever be wanted at once."""
    return REPLICAS_MAX + settings.scaling.warm


def _replica(settings: Settings, folder: Folder, name: str, number: int, model: str = "") -> Want:
    threads = str(settings.replica.threads)
    env = (("OMP_NUM_THREADS", threads), ("MKL_NUM_THREADS", threads))
    devices = devices_of(settings.replica.devices)
    dealt = deal(settings.replica.engine, settings.replica.url, settings.engine, number)
    words = _replica_words(settings, folder, name, dealt.kind)
    if dealt.kind in FOREIGN:
        device = settings.replica.devices if on_gpus(dealt) else "" if dealt.url else "cpu"
        words += (f"--settings={folder.settings}", f"--number={number}")
    else:
        turn = turn_of(settings.replica, settings.engine, number) * gpus_each(settings.replica, settings.engine)
        device = devices[turn % len(devices)]
        words += (f"--device={device}",)
    return Want(role=Role.REPLICA, child=_child(folder, name, words, env), device=device, model=model)


def devices_of(text: str) -> list[str]:
    """The devices that a setting names, in order. Raises BadSettings."""
    devices = [one.strip() for one in text.split(",")]
    for one in devices:
        if not DEVICE.fullmatch(one):
            raise BadSettings(
                f"[replica] devices: {one!r} is no device. Write cpu, or GPUs with commas between them: cuda:0,cuda:1"
            )
    return devices


def _child(folder: Folder, name: str, words: tuple[str, ...], env: tuple[tuple[str, str], ...] = ()) -> Child:
    run_file = ("HOLDFAST_RUN_FILE", str(folder.run(name)))
    return Child(name=name, argv=_verb(*words), env=(*env, run_file), log_path=str(folder.log(name)))


def _replica_words(settings: Settings, folder: Folder, name: str, engine: EngineKind) -> tuple[str, ...]:
    replica, small = settings.replica, name.startswith(SMALLER)
    model = settings.smaller if small else settings.model
    options = {
        "--name": name,
        "--listen": f"unix:{folder.socket(name)}",
        "--box": folder.box(name),
        "--model": model.path,
        "--serve-as": model.name,
        "--engine": engine.value,
        "--slots": replica.slots,
        "--context": replica.context_tokens_max,
        "--chunk": replica.prefill_chunk_tokens,
        "--queue": replica.queue_max,
        "--dtype": replica.dtype,
        "--threads": replica.threads,
        "--drain-s": replica.drain_s,
        "--batch-window-ms": replica.batch_window_ms,
    }
    if replica.health_port:
        options["--health"] = f"127.0.0.1:{replica.health_port + int(name.rpartition('-')[2]) + SMALLER_PORTS * small}"
    if engine is EngineKind.SCRIPTED:
        options["--token-ms"] = replica.token_ms
        if LEVERS_ENV in os.environ:  # a drill's site: see sim/levers.py
            options["--levers"] = f"{os.environ[LEVERS_ENV]}/{name}"
    flags: tuple[str, ...] = ("--core-dumps",) if settings.guard.core_dumps else ()
    if engine is EngineKind.EMBEDDED and settings.engine.greedy_across and not small:
        flags += ("--greedy-across",)
    return ("replica", *(f"{word}={value}" for word, value in options.items()), *flags)


def _any_foreign(settings: Settings) -> bool:
    """Whether some replica has an engine of somebody else, which has to be ended too."""
    kinds = range(1 + len(settings.engine.mix))
    return any(
        deal(settings.replica.engine, settings.replica.url, settings.engine, one).kind in FOREIGN for one in kinds
    )


def leave_s(settings: Settings) -> float:
    """How long a replica that was told to leave may take, in seconds: its answers, then its engine if that is foreign."""
    return settings.replica.drain_s + 1 + (ENGINE_LEAVE_S if _any_foreign(settings) else 0.0)


def rules_of(settings: Settings) -> Rules:
    """What supervision goes by."""
    return Rules(
        restart=settings.restart,
        silent_s=max(settings.probe.silent_s, FOREIGN_SILENT_S * _any_foreign(settings)),
        worker_silent_s=settings.probe.worker_silent_s,
        replica_grace_s=leave_s(settings),
        gateway_grace_s=settings.gateway.drain_s + GATEWAY_GRACE_S,
        count=settings.replica.count,
        warm=settings.scaling.warm,
        scaling=settings.scaling,
        mixed=bool(settings.engine.mix),
    )
