"""holdfast replica --engine vllm, sglang, triton, llamacpp or openai: brings the engine up, or dials it, and serves before it."""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import uvloop
from msgspec import structs

from holdfast.app.foreign import Order, Word, opened
from holdfast.cli.replica_doors import RUN_FILE_ENV, about, furnished, serve, tell_ready, write_run_file
from holdfast.cli.start_faults import start_fault
from holdfast.domain.address import parse_address
from holdfast.domain.fault import Fault
from holdfast.domain.settings import BadSettings, Settings
from holdfast.domain.settings_engine import unmixed
from holdfast.fleet.crew import SMALLER
from holdfast.host.clock import MonotonicClock
from holdfast.host.engine_process import EngineNotStarted
from holdfast.pearl.listen import claim
from holdfast.store.engine_record import EngineRecordFile
from holdfast.store.folder import kept_settings


def run(args: argparse.Namespace, clock: MonotonicClock, began: float) -> int:
    """Run until drained. 0: left as told. Else the code of what stood in the way; one sentence on stderr says it."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_live(args, clock, began))
    except asyncio.CancelledError:
        return 0  # told to leave while the engine was starting
    except (EngineNotStarted, BadSettings, Fault, OSError, ValueError) as error:
        found = start_fault(error)
        if found is None:
            raise
        print(f"holdfast replica: {found.why}", file=sys.stderr)
        return found.code
    return 0


async def _live(args: argparse.Namespace, clock: MonotonicClock, began: float) -> None:
    claim(parse_address(args.listen)).close()  # a taken address shows now, not after minutes of loading
    own = asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, own.cancel if own is not None else _nothing)
    seen = about(args)

    def tell(stage: str, away: bool = False) -> None:
        write_run_file(structs.replace(seen, stage=stage, away=away))

    def placed(device: str) -> None:
        nonlocal seen
        seen = structs.replace(seen, device=device)

    word = Word(stage=tell, placed=placed, away=partial(tell, away=True))
    async with AsyncExitStack() as after:
        room = Path(after.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-engine-")))
        engine = await after.enter_async_context(opened(_order(args, room), clock, word))
        args.batch_window_ms = args.token_ms = 0.0  # such engines batch by themselves
        replica = furnished(args, clock, engine.core, engine.core.context_tokens_max)
        after.callback(replica.health.stop)
        replica.run_file = structs.replace(replica.run_file, engine=engine.words, device=seen.device)
        await serve(replica, args.drain_s, lambda: tell_ready(replica, clock.now() - began))


def _nothing() -> None:
    return


def _order(args: argparse.Namespace, spare: Path) -> Order:
    """`spare`: the folder of a replica that has no site."""
    settings = _settings(args)
    run_file = Path(os.environ[RUN_FILE_ENV]) if RUN_FILE_ENV in os.environ else spare / "run" / f"{args.name}.json"
    run_file.parent.mkdir(parents=True, exist_ok=True)
    root = run_file.parent.parent
    log = root / "log"
    log.mkdir(exist_ok=True)
    return Order(
        settings=settings,
        number=args.number,
        log=log / f"{args.name}.engine.log",
        records=EngineRecordFile.of(run_file),
        room=root / "engine" / args.name,
    )


def _settings(args: argparse.Namespace) -> Settings:
    """The site's, with what was said on the command line, where that is said of both."""
    if args.settings is None:
        raise BadSettings(f"--engine {args.engine} needs --settings: its program and words stand there")
    kept = kept_settings(args.settings)
    if args.model is None:
        return kept
    model = structs.replace(kept.model, path=str(args.model), name=args.serve_as or kept.model.name)
    engine = unmixed(kept.engine) if args.name.startswith(SMALLER) else kept.engine
    return structs.replace(kept, model=model, engine=engine)
