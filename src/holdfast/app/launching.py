"""From the settings and this machine to the plan of one replica's engine: what policy/launch.py turns into a command."""

import os
import secrets
import sysconfig
from pathlib import Path

import msgspec
from msgspec import Struct

from holdfast.domain.engine import EngineKind, StartFailure
from holdfast.domain.replica import StartFault
from holdfast.domain.settings import Settings
from holdfast.domain.settings_engine import Dealt
from holdfast.host.ports import free_ports
from holdfast.host.triton_install import find_triton, lay_out_backends
from holdfast.policy.launch_gpus import Ask, gpus_each, gpus_of, indices_of, on_gpus, seen_of, turn_of
from holdfast.policy.launch_plan import Gpu, LaunchPlan, version_of
from holdfast.policy.model_facts import ModelFacts, ModelFile, facts_of

PORTS = 3  # Triton takes three
PACKAGE = Path(__file__).resolve().parents[1]


class Place(Struct, frozen=True, kw_only=True):
    """Whose engine it is: the replica's number, how many there are, and the folder that is its own."""

    number: int
    replicas: int
    room: Path
    look_only: bool = False  # nothing is written


def facts_in(folder: Path) -> ModelFacts:
    """What a model folder holds. Raises OSError or ValueError: it is none."""
    read = _config(folder)
    files = [ModelFile(one.name, one.stat().st_size) for one in sorted(folder.iterdir()) if one.is_file()]
    return facts_of(read, files)


def vocab_size_in(folder: Path) -> int:
    """How many token ids its model knows; 0 where it does not tell. Raises OSError or ValueError."""
    size = _config(folder).get("vocab_size")
    return size if isinstance(size, int) else 0


def _config(folder: Path) -> dict[str, object]:
    config = folder / "config.json"
    return msgspec.json.decode(config.read_bytes(), type=dict[str, object]) if config.is_file() else {}


def planned(
    settings: Settings, dealt: Dealt, place: Place, seen: tuple[Gpu, ...] | None, version: str
) -> LaunchPlan | StartFailure:
    """The plan for a replica's engine, with free ports and a new key. Raises OSError or ValueError: no model folder."""
    folder = Path(settings.model.path)
    facts = facts_in(folder)
    replica, engine = settings.replica, settings.engine
    ask = Ask(
        devices=indices_of(replica.devices) if on_gpus(dealt) else (),
        seen=seen,
        number=place.number,
        turn=turn_of(replica, engine, place.number),
        replicas=turn_of(replica, engine, place.replicas),
        wanted=gpus_each(replica, engine),
        context=replica.context_tokens_max,
        args=engine.args,
    )
    gpus = gpus_of(facts, ask)
    if isinstance(gpus, StartFailure):
        return gpus
    triton = None
    if dealt.kind is EngineKind.TRITON:
        try:
            triton = find_triton(dealt.program)
            if not place.look_only:
                triton = lay_out_backends(triton, place.room)
        except ValueError as error:
            return StartFailure(StartFault.SETTINGS, f"[engine] program: {error}")
    return LaunchPlan(
        kind=dealt.kind,
        program=dealt.program,
        folder=str(folder),
        served_as=settings.model.name,
        facts=facts,
        ports=free_ports(PORTS),
        key=secrets.token_hex(24),
        gpus=gpus,
        seen=seen_of(seen, gpus),
        insist=engine.gpus > 0,
        slots=replica.slots,
        context_tokens_max=replica.context_tokens_max,
        queue_max=replica.queue_max,
        dtype=replica.dtype,
        threads=replica.threads,
        args=() if dealt.of_mix else engine.args,
        env=() if dealt.of_mix else engine.env,
        start_s=engine.start_s,
        version=version_of(version),
        room=str(place.room),
        package=str(PACKAGE),
        inherited=tuple(os.environ.items()),
        triton=triton,
        python_paths=(str(PACKAGE.parent), *sorted({sysconfig.get_path(one) for one in ("purelib", "platlib")})),
    )
