"""holdfast validate: asks a model the questions that it ships with, through the embedded engine."""

import argparse
import hashlib
import pkgutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from holdfast.dialect.open import open_dialect
from holdfast.domain.dialect import Dialect, Said
from holdfast.domain.fault import BadRequest, EngineRefused, Fault
from holdfast.domain.ports import Core, Work
from holdfast.domain.request import Finish, Sampling
from holdfast.gateway.openai_tools import offered
from holdfast.gateway.openai_turns import turns
from holdfast.gateway.openai_wire import decode
from holdfast.pearl.options import CoreOptions, OpenCore
from holdfast.policy.canary import MARGIN_NATS
from holdfast.policy.validation import REFERENCE, Case, Reference, Report, Verdict, compare, formed, judge, report
from holdfast.store import answers as answers_kept

_EMBEDDED_DOOR = "holdfast.pearl.open:open_core"  # opened by name: only a process that needs torch pays for loading it
_USAGE_ERROR = 2
_GREEDY = Sampling(temperature=0.0)
_GREEDY_TOLD = Sampling(temperature=0.0, logprobs=0, ignore_eos=True)
_GREEDY_RIVALS = Sampling(temperature=0.0, logprobs=2, ignore_eos=True)
_CANARY_PROMPT_MAX, _CANARIES_TRIED, _CANARY_TOKENS = 128, 200, 16  # tokens, cases, tokens
_WRONG_SHOWN = 10
_Line = TypeVar("_Line", Case, Reference)


class _Sealed(Struct):
    sha256: str
    bytes: int


class _Manifest(Struct):
    files: dict[str, _Sealed]


class _Job(Struct):
    """One attempt and what came of it so far."""

    work: Work
    ids: list[int]
    logprobs: list[float]
    gaps: list[float]  # of each choice to its runner-up, in nats; empty where rivals were not asked for
    finish: Finish | None = None
    fault: str = ""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb to the command line."""
    parser = subparsers.add_parser("validate", help="check a model folder against its gate", description=__doc__)
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL_DIR", help="a model folder with gate.jsonl, in Hugging Face format")
    add("--gate", type=Path, metavar="FILE", help="other cases than the folder's gate.jsonl")
    add("--tasks", default="", metavar="A,B", help=f"only these tasks ({REFERENCE} is one)")
    add("--json", action="store_true", help="the report as JSON on stdout")
    add("--max-tokens", type=int, default=512, help="an answer that is longer is wrong (default 512)")
    add("--dtype", choices=("fp32", "bf16"), default="fp32", help=f"bf16 leaves out {REFERENCE}, recorded in fp32")
    add("--threads", type=int, default=1)
    add("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    add(
        "--record",
        action="store_true",
        help=f"when it passes, write a canary's answer to MODEL_DIR/{answers_kept.FILE}",
    )


def run(args: argparse.Namespace) -> int:
    """0: every bar is met. 1: one is missed, or a file is damaged. 2: there is nothing to ask, or the model won't open."""
    damaged = damage(args.model)
    if damaged:
        print(f"holdfast validate: {damaged}", file=sys.stderr)
        return 1
    try:
        wanted = frozenset(filter(None, args.tasks.split(",")))
        cases, references = _questions(args, wanted)
        core = _open(args)
        dialect = open_dialect(args.model)
        verdicts = _ask(core, dialect, cases, references, args.max_tokens)
        outcome = report(verdicts)
        if args.record and outcome.passed:
            told = answers_kept.record(args.model, canary(core, dialect, cases, args.dtype))
            print(f"holdfast validate: recorded {told}", file=sys.stderr)
    except (Fault, OSError, ValueError) as error:
        print(f"holdfast validate: {error}", file=sys.stderr)
        return _USAGE_ERROR
    if args.json:
        wrong = [verdict for verdict in verdicts if not verdict.right]
        sys.stdout.write(msgspec.json.encode({"report": outcome, "wrong": wrong}).decode() + "\n")
    else:
        _show(outcome, verdicts, args.model)
    return 0 if outcome.passed else 1


def damage(folder: Path) -> str:
    """A sentence on the first file that is not as the folder's manifest says, or nothing. No manifest: nothing to compare."""
    path = folder / "manifest.json"
    if not path.is_file():
        return ""
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=_Manifest)
    except msgspec.DecodeError as error:
        return f"{path} is not a manifest: {error}"
    for name, sealed in manifest.files.items():
        file = folder / name
        if not file.is_file():
            return f"{file} is missing, but the manifest lists it"
        if file.stat().st_size != sealed.bytes:
            return f"{file} has {file.stat().st_size} bytes, the manifest says {sealed.bytes}"
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if digest != sealed.sha256:
            return f"{file} is damaged: its SHA-256 begins {digest[:12]}, the manifest says {sealed.sha256[:12]}"
    return ""


def _questions(args: argparse.Namespace, wanted: frozenset[str]) -> tuple[list[Case], list[Reference]]:
    gate = args.gate or args.model / "gate.jsonl"
    cases = [case for case in _lines(gate, Case) if not wanted or case.task in wanted]
    told = args.model / "reference.jsonl"
    comparable = told.is_file() and args.dtype == "fp32" and (not wanted or REFERENCE in wanted)
    references = _lines(told, Reference) if comparable else []
    if not cases and not references:
        raise ValueError(f"{gate} holds no case of {args.tasks or 'any task'}")
    return cases, references


def _lines(path: Path, kind: type[_Line]) -> list[_Line]:
    try:
        return [msgspec.json.decode(line, type=kind) for line in path.read_bytes().splitlines() if line.strip()]
    except msgspec.DecodeError as error:
        raise ValueError(f"{path}: {error}") from error


def _open(args: argparse.Namespace) -> OpenCore:
    try:
        open_core: Callable[[Path, CoreOptions], OpenCore] = pkgutil.resolve_name(_EMBEDDED_DOOR)
    except ModuleNotFoundError as error:
        raise ValueError(f"the embedded engine needs {error.name}: pip install 'holdfast[embedded]'") from error
    return open_core(args.model, CoreOptions(dtype=args.dtype, threads=args.threads, device=args.device))


def _ask(
    core: Core, dialect: Dialect, cases: Sequence[Case], references: Sequence[Reference], max_tokens: int
) -> list[Verdict]:
    jobs = [_job(prompt_ids(case, dialect), max_tokens, dialect.stop_ids) for case in cases]
    told = [_told(reference) for reference in references]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("asking", total=len(jobs) + len(told))
        for _ in answers(core, [*jobs, *told]):
            progress.advance(bar)
    verdicts = [_judged(case, job, dialect) for case, job in zip(cases, jobs, strict=True)]
    verdicts += filter(None, (_formed(case, job, dialect) for case, job in zip(cases, jobs, strict=True)))
    return verdicts + [_compared(reference, job) for reference, job in zip(references, told, strict=True)]


def prompt_ids(case: Case, dialect: Dialect) -> list[int]:
    """The case's messages and tools, read as the gateway reads a request."""
    body = {"model": "gate", "messages": case.messages, "tools": case.tools or None}
    ask = decode(msgspec.json.encode(body))
    return dialect.render(turns(ask), offered(ask), case.thinking, case.json_mode)


def _job(prompt: list[int], max_tokens: int, stop_ids: tuple[int, ...], sampling: Sampling = _GREEDY) -> _Job:
    work = Work(
        prompt_ids=prompt, delivered_ids=[], sampling=sampling, max_tokens=max_tokens, seed=0, stop_ids=stop_ids
    )
    return _Job(work, [], [], [])


def _told(reference: Reference) -> _Job:
    return _job(reference.prompt_ids, len(reference.ids), (), _GREEDY_TOLD)


def canary(core: Core, dialect: Dialect, cases: Sequence[Case], dtype: str) -> answers_kept.Recorded:
    """The case whose greedy answer is clearest, as replicas in service will be asked it.

    The clearest, because it must be given on every build: in each of its choices the runner-up is far behind.

    Raises:
        ValueError: no case is short enough, or every answer is all but drawn.
    """
    prompts = [prompt_ids(case, dialect) for case in cases]
    short = [prompt for prompt in prompts if len(prompt) <= _CANARY_PROMPT_MAX][:_CANARIES_TRIED]
    found = answers(core, [_job(prompt, _CANARY_TOKENS, (), _GREEDY_RIVALS) for prompt in short])
    best = max((job for job in found if len(job.ids) == _CANARY_TOKENS), key=lambda job: min(job.gaps), default=None)
    if best is None or min(best.gaps) < MARGIN_NATS:
        raise ValueError(f"no case of up to {_CANARY_PROMPT_MAX} tokens has an answer clear enough to be recorded")
    return answers_kept.Recorded(
        engine=core.release().engine,
        dtype=dtype,
        prompt_ids=tuple(best.work.prompt_ids),
        ids=tuple(best.ids),
        margin_nats=round(min(best.gaps), 3),
    )


def answers(core: Core, jobs: Sequence[_Job]) -> Iterator[_Job]:
    """Run the jobs, as many at once as the core takes; each is yielded when it has ended."""
    waiting = list(enumerate(jobs))[::-1]
    live: dict[int, _Job] = {}
    while waiting or live:
        while waiting:
            ticket, job = waiting[-1]
            try:
                core.submit(ticket, job.work)
            except EngineRefused:
                if not live:
                    raise
                break
            except BadRequest as error:
                job.fault = error.why
                yield job
            else:
                live[ticket] = job
            waiting.pop()
        for made in core.step():
            job = live[made.ticket]
            job.ids += made.ids
            job.logprobs += [row.logprob for row in made.logprobs or ()]
            job.gaps += [abs(row.top[0][1] - row.top[1][1]) for row in made.logprobs or () if len(row.top) > 1]
            job.finish, job.fault = made.finish, made.fault
            if made.finish is not None or made.fault:
                yield live.pop(made.ticket)


def _judged(case: Case, job: _Job, dialect: Dialect) -> Verdict:
    if job.fault:
        return Verdict(case.task, False, job.fault)
    return judge(case, _said(job, dialect), job.finish is Finish.STOP)


def _formed(case: Case, job: _Job, dialect: Dialect) -> Verdict | None:
    return formed(case, _said(job, dialect), job.finish is Finish.STOP)


def _said(job: _Job, dialect: Dialect) -> Said:
    parser = dialect.parser(job.work.prompt_ids)
    said, rest = parser.feed(job.ids), parser.end()
    said.reasoning += rest.reasoning
    said.content += rest.content
    said.calls += rest.calls
    return said


def _compared(reference: Reference, job: _Job) -> Verdict:
    return Verdict(REFERENCE, False, job.fault) if job.fault else compare(reference, job.ids, job.logprobs)


def _show(outcome: Report, verdicts: Sequence[Verdict], model: Path) -> None:
    table = Table("task", "cases", "right", "share", "bar", "", title=f"gate of {model}")
    for score in outcome.scores:
        mark = "[green]meets it[/]" if score.passed else "[red]misses it[/]"
        table.add_row(score.task, str(score.n), str(score.right), f"{score.share:.3f}", f"{score.bar:g}", mark)
    console = Console()
    console.print(table)
    missed = {score.task for score in outcome.scores if not score.passed}
    wrong = [verdict for verdict in verdicts if not verdict.right and verdict.task in missed]
    for verdict in wrong[:_WRONG_SHOWN]:
        console.print(f"{verdict.task}: {verdict.why}", markup=False, highlight=False)
    if len(wrong) > _WRONG_SHOWN:
        console.print(f"... and {len(wrong) - _WRONG_SHOWN} more; --json names all")
    console.print(outcome.why, markup=False, highlight=False)
