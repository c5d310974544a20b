"""The profiles' commands, read by the argument parsers of the engines themselves.

Needs their environments: `.venv-vllm` or HOLDFAST_VLLM_PYTHON for vLLM, HOLDFAST_SGLANG_PYTHON for SGLang, whose sources are
enough on a machine without a GPU. Skipped where they are absent.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
from msgspec import structs

from holdfast.domain.engine import EngineKind, Launch
from holdfast.host.engine_asking import parsed, version_told
from holdfast.policy.launch import launch
from holdfast.policy.launch_fit import fewest
from holdfast.policy.launch_plan import Gpu, LaunchPlan, version_of
from holdfast.policy.model_facts import facts_of
from published import CONFIGS, SIZES, files_of

ROOT = Path(__file__).parents[2]
GIB = 1024**3
MACHINES = {
    "H200": Gpu(name="NVIDIA H200", memory_bytes=int(140.4 * GIB), capability=(9, 0)),
    "A100": Gpu(name="NVIDIA A100-SXM4-80GB", memory_bytes=80 * GIB, capability=(8, 0)),
    "B200": Gpu(name="NVIDIA B200", memory_bytes=int(179.1 * GIB), capability=(10, 0)),
    "H20": Gpu(name="NVIDIA H20", memory_bytes=int(95.6 * GIB), capability=(9, 0)),
}
MANY_VLLM = """
import json, sys
try:
    from vllm.entrypoints.common.cli_args import make_arg_parser
except ModuleNotFoundError:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = make_arg_parser(FlexibleArgumentParser())
for words in json.load(open(sys.argv[1])):
    AsyncEngineArgs.from_cli_args(parser.parse_args(words[3:]))
    print("PARSED", flush=True)
"""
MANY_SGLANG = """
import json, sys
from sglang.srt.server_args import prepare_server_args
for words in json.load(open(sys.argv[1])):
    made = prepare_server_args(words[3:])
    assert made.api_key == "secret" and not made.trust_remote_code and made.host == "127.0.0.1", made
    print("PARSED", flush=True)
"""


def python_of(kind: EngineKind) -> str:
    """The Python of an engine's environment; skips the test where there is none."""
    named = os.environ.get(f"HOLDFAST_{kind.upper()}_PYTHON", str(ROOT / f".venv-{kind}/bin/python"))
    if not Path(named).is_file():
        pytest.skip(f"no {kind} here: set HOLDFAST_{kind.upper()}_PYTHON, or make .venv-{kind}")
    return named


def commands(kind: EngineKind, program: str, version: str, room: Path) -> dict[str, Launch]:
    """A command for each published model on each kind of machine with eight GPUs on which it runs, and on CPU."""
    found: dict[str, Launch] = {}
    for name in SIZES:
        (room / name).mkdir()
        (room / name / "config.json").write_text(json.dumps(CONFIGS[name]))
        plan = LaunchPlan(
            kind=kind,
            program=program,
            folder=str(room / name),
            served_as=name,
            facts=facts_of(CONFIGS[name], files_of(name)),
            ports=(30000,),
            key="secret",
            context_tokens_max=32768,
            version=version_of(version),
        )
        for machine, gpu in MACHINES.items():
            count = fewest(plan.facts, [gpu] * 8, plan.context)
            made = launch(structs.replace(plan, gpus=tuple(range(count)), seen=(gpu,) * count)) if count else None
            if isinstance(made, Launch):
                found[f"{name} on {count} {machine}"] = made
        made = launch(structs.replace(plan, gpus=(0, 1, 2, 3, 4, 5, 6, 7)))
        if isinstance(made, Launch):
            found[f"{name} on 8 GPUs that nobody has seen"] = made
        made = launch(structs.replace(plan, context_tokens_max=2048))
        if isinstance(made, Launch):
            found[f"{name} on CPU"] = made
    return found


def all_parsed(program: str, snippet: str, found: dict[str, Launch], room: Path) -> None:
    for name, text in next(iter(found.values())).files:
        (room / name).write_text(text)
    (room / "commands.json").write_text(json.dumps([one.argv for one in found.values()]))
    env = {"HF_HUB_OFFLINE": "1", "PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("HOLDFAST_SGLANG_PATH", "")}
    done = subprocess.run(
        (program, "-c", snippet, "commands.json"),
        cwd=room,
        env=env,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    read = done.stdout.count("PARSED")
    assert read == len(found), f"{list(found)[read]}: {done.stderr[-1500:]}"


def test_vllm_reads_every_command(tmp_path):
    program = python_of(EngineKind.VLLM)
    found = commands(EngineKind.VLLM, program, version_told(EngineKind.VLLM, program), tmp_path)
    assert {name.partition(" ")[0] for name in found} == set(SIZES)
    all_parsed(program, MANY_VLLM, found, tmp_path)


def test_vllm_itself_is_asked_and_complains_of_a_word_it_has_not(tmp_path):
    program = python_of(EngineKind.VLLM)
    found = commands(EngineKind.VLLM, program, version_told(EngineKind.VLLM, program), tmp_path)["qwen-7b on CPU"]
    assert parsed(found) == ""
    complaint = parsed(structs.replace(found, argv=(*found.argv, "--no-such-word", "1")))
    assert "unrecognized arguments: --no-such-word" in complaint


def test_sglang_reads_every_command(tmp_path):
    program = python_of(EngineKind.SGLANG)
    found = commands(EngineKind.SGLANG, program, "0.5.23", tmp_path)
    assert {name.partition(" ")[0] for name in found} == set(SIZES)
    all_parsed(program, MANY_SGLANG, found, tmp_path)
