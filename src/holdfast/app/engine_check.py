"""What would be run for each replica's engine, and why, before anything runs: `holdfast engine check` in values.

The plan and the command are those of the replica process itself (launching.py, policy/launch.py); only the port and the key will
be others.
"""

from pathlib import Path

from msgspec import Struct, structs

from holdfast.app.launching import Place, facts_in, planned
from holdfast.domain.engine import FOREIGN, Launch, StartFailure
from holdfast.domain.replica import StartFault
from holdfast.domain.settings import Settings
from holdfast.domain.settings_engine import URL, Dealt, deal, key_of, outside
from holdfast.host.engine_asking import can_parse, lacking, parsed, version_told
from holdfast.policy.launch import launch
from holdfast.policy.launch_fit import fit
from holdfast.policy.launch_gpus import crowded, indices_of, on_gpus
from holdfast.policy.launch_plan import Gpu, LaunchPlan
from holdfast.store.engine_key import read_key
from holdfast.store.folder import folder_of

LOOPBACKS = ("127.", "localhost", "::1")
ON_CPU = "the server in the xllamacpp wheel computes on CPU; for GPUs name a llama-server built for them."
NO_PARSER = "has no parser that can be asked alone: it reads its words at the start"


class Said(Struct, frozen=True):
    """A word of the command line, or a variable, and why it is there."""

    word: str
    why: str


class Checked(Struct, frozen=True, kw_only=True):
    """One replica. `problem`: why it would not start. `parser_said`: its complaint, or why none was asked."""

    replica: int
    engine: str
    version: str = ""
    program: str = ""
    url: str = ""
    model: str = ""
    gpus: list[int] = []
    room: str = ""  # whether the model fits, in words
    command: list[str] = []
    why: list[Said] = []
    env: list[Said] = []
    passed: list[str] = []  # variables of ours that it gets as they are
    start_s: float = 0.0
    leave: str = ""
    warnings: list[str] = []
    problem: str = ""
    problem_code: str = ""
    parser_asked: bool = False
    parser_said: str = ""


def check(settings: Settings, number: int, seen: tuple[Gpu, ...] | None, ask_parser: bool) -> Checked:
    """One replica's engine. Nothing is written or started; its program is asked for its version."""
    dealt = deal(settings.replica.engine, settings.replica.url, settings.engine, number)
    head = Checked(replica=number, engine=dealt.kind, program=dealt.program, url=dealt.url)
    if dealt.kind not in FOREIGN:
        own = "Holdfast's own engine, in a process of Holdfast: no program is run"
        return structs.replace(head, room=own, warnings=_of_crowd(settings, number))
    if dealt.url:
        head = structs.replace(
            head, room="it runs already: used, and neither started nor stopped", warnings=_of_url(dealt.url, settings)
        )
    try:
        if dealt.url:
            read_key(dealt.url, settings.engine)
            return head
        return _of_program(settings, dealt, head, seen, ask_parser)
    except (OSError, ValueError) as error:
        return structs.replace(head, problem=_sentence(str(error)), problem_code=StartFault.SETTINGS.name)


def _of_program(
    settings: Settings, dealt: Dealt, head: Checked, seen: tuple[Gpu, ...] | None, ask_parser: bool
) -> Checked:
    if not Path(dealt.program).is_file():
        raise FileNotFoundError(f"[engine] program: there is nothing at {dealt.program}")
    version = version_told(dealt.kind, dealt.program)
    head = structs.replace(
        head, version=version, model=f"{facts_in(Path(settings.model.path)).named()}, at {settings.model.path}"
    )
    name = f"replica-{head.replica}"
    room = folder_of(settings).run(name).parent.parent / "engine" / name
    place = Place(number=head.replica, replicas=settings.replica.count, room=room, look_only=True)
    plan = planned(settings, dealt, place, seen, version)
    if isinstance(plan, StartFailure):
        return _failed(head, plan)
    head = structs.replace(head, gpus=list(plan.gpus), room=_room(plan))
    made = launch(plan)
    if isinstance(made, StartFailure):
        return _failed(head, made)
    if indices_of(settings.replica.devices) and not on_gpus(dealt):
        made = structs.replace(made, warnings=(*made.warnings, ON_CPU))
    found = _told(head, plan, made)
    absent = lacking(made)
    if absent:
        return structs.replace(found, problem=_sentence(absent), problem_code=StartFault.SETTINGS.name)
    if not ask_parser:
        return found
    if not can_parse(made.kind):
        return structs.replace(found, parser_said=f"{made.kind} {NO_PARSER}")
    complaint = parsed(made)
    found = structs.replace(found, parser_asked=True, parser_said=complaint)
    return structs.replace(found, problem=complaint, problem_code=StartFault.SETTINGS.name) if complaint else found


def _told(head: Checked, plan: LaunchPlan, made: Launch) -> Checked:
    said = [Said(_whole(word, made), why) for word, why in made.why]
    variables = [f"{name}={value}" for name, value in made.env]
    explained = [one for one in said if one.word in variables]
    theirs = {f"{name}={value}" for name, value in plan.inherited}
    others = [one for one in variables if one not in {said.word for said in explained}]
    return structs.replace(
        head,
        command=[word.replace(made.key, "...") for word in made.argv],
        why=_hidden([one for one in said if one.word not in variables], made.key),
        env=_hidden([*explained, *(Said(one, "") for one in others if one not in theirs)], made.key),
        passed=[one.partition("=")[0] for one in others if one in theirs],
        start_s=made.start_s,
        leave=f"{made.leave.signal}, killed after {made.leave.grace_s:g} s",
        warnings=list(made.warnings),
    )


def _whole(flag: str, made: Launch) -> str:
    """A flag with its value, where a launch tells of the flag alone."""
    return next((word for word in made.argv if word.startswith(f"{flag}=")), flag)


def _hidden(said: list[Said], key: str) -> list[Said]:
    """Without the key: this is printed."""
    return [Said(one.word.replace(key, "..."), one.why) for one in said]


def _room(plan: LaunchPlan) -> str:
    if not plan.gpus:
        return "on CPU"
    return fit(plan.facts, plan.seen, len(plan.gpus), plan.context).why


def _failed(head: Checked, failure: StartFailure) -> Checked:
    return structs.replace(head, problem=_sentence(failure.why), problem_code=failure.code.name)


def _of_url(url: str, settings: Settings) -> list[str]:
    warnings = _of_key(url, settings)
    found = URL.fullmatch(url)
    host = (found[2] or found[3]) if found is not None else ""
    if found is None or host.startswith(LOOPBACKS) or found[1] in ("https", "grpcs"):
        return warnings
    what = "prompts, answers and the key" if key_of(url, settings.engine) else "prompts and answers"
    bare = f"{url} is on the network without TLS: {what} can be read on the way."
    return [*warnings, f"{bare} Use https, or a tunnel."]


def _of_crowd(settings: Settings, number: int) -> list[str]:
    found = crowded(settings.replica, settings.engine, number)
    if found is None:
        return []
    gpu, other = found
    shared = f"there are too few GPUs: it shares cuda:{gpu} with replica {other}, whose engine takes nearly all memory of it."
    return [f"{shared} Name more in [replica] devices, or lower [replica] count."]


def _of_key(url: str, settings: Settings) -> list[str]:
    """That several engines are shown the same key, and that any of them could hence use it at the others."""
    engine = settings.engine
    shared = [one for one in outside(settings.replica.url, engine) if one not in engine.keys]
    if not engine.key or url not in shared or len(shared) < 2:
        return []
    sent = f"[engine] key is sent to {len(shared)} engines: {', '.join(shared)}"
    return [f"{sent}. Where they are not of one owner, give each its own with [engine] keys."]


def _sentence(text: str) -> str:
    return text.rstrip(".") + "."
