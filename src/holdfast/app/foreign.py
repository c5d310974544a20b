"""A replica's foreign engine, from its start to its end: swept, planned, run, asked what it can do, served, ended.

    async with opened(order, clock, word) as engine:
        ...  # serve engine.core

On the way in `word` hears how far the start has come. On the way out the engine is ended in its own way, and then by force;
nothing of it is left, whatever ended us. An external engine is only dialled and hung up.
"""

import asyncio
import contextlib
import hashlib
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from msgspec import Struct, structs

from holdfast.app.adapters import Address, adapter
from holdfast.app.launching import Place, planned, vocab_size_in
from holdfast.app.mending import Mender
from holdfast.domain.engine import Abilities, Ability, EngineKind, Launch, Progress, StartFailure
from holdfast.domain.fault import BadRequest, EngineLost, EngineRefused, Fault
from holdfast.domain.ports import Clock, ForeignEngine
from holdfast.domain.release import Exactness, Release
from holdfast.domain.replica import AWAY, StartFault
from holdfast.domain.settings import Settings
from holdfast.domain.settings_engine import Dealt, deal
from holdfast.engine.foreign import ForeignCore, Limits
from holdfast.engine.serving import Serving
from holdfast.engine.triton import TritonEngine
from holdfast.host.clock import unix_s
from holdfast.host.engine_asking import version_told
from holdfast.host.engine_process import EngineNotStarted, EngineProcess
from holdfast.host.engine_start import until_ready
from holdfast.host.engine_sweep import make_way
from holdfast.host.gpus import gpus_here
from holdfast.host.triton_stubs import clear_shared
from holdfast.policy.engine_end import VITAL, crash_of
from holdfast.policy.foreign_release import completed
from holdfast.policy.launch import launch
from holdfast.policy.launch_gpus import indices_of
from holdfast.policy.outward import outward, without_key
from holdfast.policy.start_log import read_line
from holdfast.policy.triton_launch import shared_prefix
from holdfast.store.access import AccessFile
from holdfast.store.engine_key import read_key
from holdfast.store.engine_record import EngineRecordFile
from holdfast.store.gguf_head import ALL_F32, head_of
from holdfast.store.model_folder import gguf_of, gguf_weights_of, weights_of

KNOCK_S, RETELL_S = 0.5, 60.0
_KEYLESS = re.compile(r"\banswered 40[13]\b")

Tell = Callable[[str], None]


class EngineCrashed(Exception):
    """The engine died of its own fault; the message names its kind, and quotes nothing."""


class Order(Struct, frozen=True, kw_only=True):
    """What one replica is told: the site's settings, its number, where its engine's log and record go, and its own folder."""

    settings: Settings
    number: int
    log: Path
    records: EngineRecordFile
    room: Path


class Word(Struct, frozen=True, kw_only=True):
    """What a replica says of itself before it serves. `stage`: how far the start has come; `placed`: where its engine computes,
    once that is decided; `away`: a stage too, that an engine which runs elsewhere has been waited for in vain for a while."""

    stage: Tell
    placed: Tell
    away: Tell


class Opened(Struct, frozen=True, kw_only=True):
    """An engine that is ready: the core over it, and its abilities in words."""

    core: ForeignCore
    words: str


@contextlib.asynccontextmanager
async def opened(order: Order, clock: Clock, word: Word) -> AsyncIterator[Opened]:
    """Bring the engine up, or dial it.

    Raises:
        EngineNotStarted: it could not be brought up; nothing of it runs.
        OSError, ValueError: the machine or the settings refuse.
    """
    settings = order.settings
    dealt = deal(settings.replica.engine, settings.replica.url, settings.engine, order.number)
    async with contextlib.AsyncExitStack() as after:
        log = AccessFile(order.log)
        after.callback(log.close)
        if dealt.url:
            process, url, key = None, dealt.url, read_key(dealt.url, settings.engine)
        else:
            after.callback(clear_shared, shared_prefix(str(order.room)))
            process = await _started(order, dealt, log, clock, word)
            after.push_async_callback(_ended, process, word.stage)
            url, key = process.launch.url, process.launch.key
        engine = adapter(_address(order, dealt, url, key), clock)
        after.push_async_callback(engine.close)
        learnt: list[Abilities] = []
        if process is None:
            within_s = max(KNOCK_S, min(RETELL_S, settings.restart.start_s / 3))
            shown = _Shown(url, key)
            await _dialled(partial(_ask, engine, learnt), clock, word, shown, within_s)
        else:
            await _waited(process, partial(_ask, engine, learnt), word.stage, clock)
            process.compete()
            process.stand_or_fall_with(VITAL.get(dealt.kind, ()))
        (abilities,) = learnt
        word.stage("reading what decides its tokens")  # gigabytes, out of hundreds
        release = await asyncio.to_thread(release_of, engine, abilities, settings, outside=process is None)
        core = _core(order, engine, abilities, process, clock, release=release)
        core.outward = partial(_outward, url, key, log, settings.engine.log_whole)
        core.keyless = partial(without_key, key=key)
        after.push_async_callback(core.close)
        if process is not None:
            process.on_death = core.end
            if process.exit is not None:
                core.end(f"the engine {process.exit.words()}")
        watching = asyncio.create_task(core.watch(), name="watch of the engine")
        watching.add_done_callback(core.wrecked)
        after.callback(watching.cancel)
        yield Opened(core=core, words=abilities.words())


async def _waited(process: EngineProcess, ask: Callable[[], Awaitable[bool]], tell: Tell, clock: Clock) -> None:
    """Until it is ready. A port that somebody took between our choice and its start is no reason not to try again."""
    try:
        await until_ready(process, ask, partial(read_line, process.launch.kind), partial(_told, tell), clock)
    except EngineNotStarted as fault:
        if fault.code is not StartFault.ADDRESS:
            raise
        raise EngineNotStarted(None, fault.why) from fault


async def _ended(process: EngineProcess, tell: Tell) -> None:
    """End the engine. That may take longer than a replica may be silent, so it is told first."""
    with contextlib.suppress(OSError):
        tell("ends its engine")
    await process.leave()


async def _started(order: Order, dealt: Dealt, log: AccessFile, clock: Clock, word: Word) -> EngineProcess:
    """A new process of the engine, after what an earlier life has left is gone."""
    before = order.records.read()
    if before is not None:
        word.stage("ending what an earlier life has left of its engine")
        await make_way(before, clock)
        order.records.remove()
    clear_shared(shared_prefix(str(order.room)))
    found = await asyncio.to_thread(_launch, order, dealt)
    if isinstance(found, StartFailure):
        raise EngineNotStarted(found.code, found.why)
    word.placed(",".join(f"cuda:{number}" for number in found.gpus) or "cpu")
    whole = order.settings.engine.log_whole
    process = EngineProcess(found, order.room, clock, log=log, records=order.records, whole=whole)
    process.start()
    word.stage("started")
    return process


def _launch(order: Order, dealt: Dealt) -> Launch | StartFailure:
    """The command, found out on this machine: it asks the program for its version, and the driver for the GPUs."""
    settings = order.settings
    version = version_told(dealt.kind, dealt.program) if dealt.program else ""
    place = Place(number=order.number, replicas=settings.replica.count, room=order.room)
    plan = planned(settings, dealt, place, gpus_here(), version)
    return plan if isinstance(plan, StartFailure) else launch(plan)


def _address(order: Order, dealt: Dealt, url: str, key: str) -> Address:
    settings = order.settings
    folder, outside = Path(settings.model.path), bool(dealt.url)
    serving = Serving(
        model=settings.model.name,
        digest="",
        served_as=settings.engine.model_name if outside else "",
        vocab_size=vocab_size_in(folder),
        context_tokens_max=settings.replica.context_tokens_max,
        slots=settings.replica.slots,
        exactness=Exactness.GREEDY if _steady(settings, outside) else Exactness.FAIR,
        outside=outside,
    )
    return Address(kind=dealt.kind, url=url, serving=serving, key=key, folder=folder)


def _steady(settings: Settings, outside: bool) -> bool:
    """Whether the likeliest token is the same for every batch: as measured, in fp32 on processors (bench/greedy.py). In 16 bits a
    part of the answers parts at a tie; what an engine outside computes in is not known, nor what words of the site's change."""
    replica, engine = settings.replica, settings.engine
    plain = replica.dtype == "fp32" and not indices_of(replica.devices)
    return plain and not (outside or engine.args or engine.env) and _whole_numbers(Path(settings.model.path))


def _whole_numbers(folder: Path) -> bool:
    """Whether the GGUF file of the folder, if it has one, keeps its weights in fp32: others are computed as they are kept."""
    return all(head_of(path).file_type == ALL_F32 for path in gguf_of(folder)[:1])


async def _ask(engine: ForeignEngine, learnt: list[Abilities]) -> bool:
    """Whether it answers; what it can do is kept. Raises EngineLost or EngineRefused: not yet."""
    if not (await engine.probe()).ready:
        return False
    learnt[:] = [await engine.learn()]
    return True


class _Shown(Struct, frozen=True):
    """Where an external engine is, and the key that it is shown."""

    url: str
    key: str = ""

    def waits(self, waited_s: float, why: str) -> str:
        """The stage of who waits for it. The engine's own words stand in it, and may quote the key back."""
        asks = ": is what [engine] key or keys says for it its key?" if _KEYLESS.search(why) else ""
        return without_key(
            f"waits for {self.url}{f', for {waited_s:.0f} s' if waited_s else ''}: {why}{asks}", self.key
        )


async def _dialled(
    ask: Callable[[], Awaitable[bool]], clock: Clock, word: Word, engine: _Shown, within_s: float
) -> None:
    """Wait for an external engine as long as it takes: nobody but its owner can start it. That the stage changes every
    `within_s` says that we live: the supervisor has `[restart] start_s` of patience with each. From the first of these on it is
    away: nobody else waits for us."""
    began, told = clock.now(), ""
    while True:
        try:
            if await ask():
                return
            why = "it is not ready"
        except (EngineLost, EngineRefused, BadRequest) as fault:
            why = fault.why
        waited_s = (clock.now() - began) // within_s * within_s
        stage = engine.waits(waited_s, why)
        if stage != told:
            (word.away if waited_s else word.stage)(stage)
            told = stage
        await clock.sleep(KNOCK_S)


def _told(tell: Tell, progress: Progress) -> None:
    tell(progress.stage)


def _core(
    order: Order,
    engine: ForeignEngine,
    abilities: Abilities,
    process: EngineProcess | None,
    clock: Clock,
    *,
    release: Release,
) -> ForeignCore:
    settings = order.settings
    context, slots = settings.replica.context_tokens_max, settings.replica.slots
    limits = Limits(
        slots=min(slots, abilities.slots) if abilities.slots else slots,
        queue_max=settings.replica.queue_max,
        context_tokens_max=min(context, abilities.context_tokens_max) if abilities.context_tokens_max else context,
        counts=abilities.has(Ability.COUNTERS),
        external=process is None,
    )
    repair = None
    if isinstance(engine, TritonEngine) and process is not None:
        repair = Mender(engine, process, clock)
    ended = partial(_end, abilities.kind, process, repair)
    return ForeignCore(engine, release, clock, limits, ended=ended, repair=repair)


def release_of(engine: ForeignEngine, abilities: Abilities, settings: Settings, *, outside: bool) -> Release:
    """What a replica of this engine answers as. The digest holds all that changes tokens and that we know of. `outside`: it was
    running already, by somebody else's words.

    Raises:
        EngineLost: it was not asked yet.
    """
    told = engine.describe()
    if told is None:
        raise EngineLost("the engine was not asked yet what it serves")
    replica = settings.replica
    # of an engine outside nobody here has seen the weights: a site that mixes vouches for them, or they are not known
    vouched = bool(settings.engine.mix) or not outside
    path = Path(settings.model.path)
    weights = folder = weights_of(path) if vouched else ""
    if abilities.kind is EngineKind.LLAMACPP and not outside:
        weights = gguf_weights_of(path, folder)
    parts = (
        *(told.engine, told.digest, abilities.version, abilities.served_as, weights, replica.dtype),
        *(settings.engine.args, settings.engine.env, replica.devices, outside),
    )
    whole = completed(told, abilities, weights, settings.engine.greedy_across, folder)
    keyed = told.exactness is Exactness.EXACT  # the embedded engine, inside a server of somebody else
    greedy = whole.exactness is Exactness.GREEDY
    return structs.replace(
        whole,
        exactness=Exactness.FAIR if greedy and not _steady(settings, outside) else whole.exactness,
        model=settings.model.name,
        digest=told.digest if keyed else hashlib.sha256(repr(parts).encode()).hexdigest(),
        penalties_whole=whole.penalties_whole or keyed,
    )


def _outward(url: str, key: str, log: AccessFile, whole: bool, fault: Fault) -> str:
    """What of a failed attempt goes to who asked: not where the engine runs. That goes into the engine's log, with what else is
    left out; the engine's own words too where the log is to be `whole`, since they may quote a prompt."""
    told = outward(fault.why if isinstance(fault, BadRequest) else fault.discreet, url, key)
    if told != fault.why:
        kept = " ".join(without_key(fault.why if whole else fault.discreet, key).split())
        at = datetime.fromtimestamp(unix_s(), UTC).strftime("%Y-%m-%d %H:%M:%S")
        log.write(f"{at} an attempt failed: {kept}\n".encode())
    return told


def _end(kind: EngineKind, process: EngineProcess | None, mender: Mender | None, why: str) -> BaseException:
    """How a replica ends whose engine has ended: with a crash in its black box, or as if it had been ended from outside. That an
    engine outside is away is no fault of its replica: the next one waits for it."""
    print(f"holdfast replica: {why}", file=sys.stderr, flush=True)
    if process is None:
        return SystemExit(AWAY)
    code = process.exit.code if process.exit is not None else None
    crash = (mender.crash if mender is not None else "") or crash_of(kind, code, process.lines())
    return EngineCrashed(crash) if crash else SystemExit(1)
