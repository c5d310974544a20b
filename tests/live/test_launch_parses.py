"""The profiles' commands, read by the argument parsers of the engines themselves.

Needs their environments: `.venv-vllm` or HOLDFAST_VLLM_PYTHON for vLLM, and likewise for llama.cpp. Of SGLang the sources are
enough to read a command line, beside vLLM's environment, which has all else that it imports for that:

    make engine-sglang

Skipped where they are absent.
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
from holdfast.policy.model_facts import ModelFile, facts_of
from published import CONFIGS, SIZES, files_of

ROOT = Path(__file__).parents[2]
SGLANG = ROOT / ".venv-sglang"
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
        pytest.skip(f"no {kind} here: set HOLDFAST_{kind.upper()}_PYTHON, or run make engines")
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


def all_parsed(program: str, snippet: str, found: dict[str, Launch], room: Path, path: str = "") -> None:
    for name, text in next(iter(found.values())).files:
        (room / name).write_text(text)
    (room / "commands.json").write_text(json.dumps([one.argv for one in found.values()]))
    env = {"HF_HUB_OFFLINE": "1", "PATH": os.environ["PATH"], "PYTHONPATH": path}
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


@pytest.mark.parametrize(
    ("more", "said"), [((), ""), (("--no-such-word", "1"), "unrecognized arguments: --no-such-word")]
)
def test_vllm_itself_is_asked_whether_it_understands(tmp_path, more, said):
    program = python_of(EngineKind.VLLM)
    found = commands(EngineKind.VLLM, program, "0.32.0", tmp_path)["qwen-7b on CPU"]
    told = parsed(structs.replace(found, argv=(*found.argv, *more)))
    assert told == said if not said else said in told


def test_sglang_reads_every_command(tmp_path):
    if not SGLANG.is_dir():
        pytest.skip(f"no {SGLANG.name} here: see the head of this file")
    program = python_of(EngineKind.VLLM)
    found = commands(EngineKind.SGLANG, program, "0.5.23", tmp_path)
    assert {name.partition(" ")[0] for name in found} == set(SIZES)
    all_parsed(program, MANY_SGLANG, found, tmp_path, str(SGLANG))


def test_llama_server_words_stand_in_llamacpps_own_table():
    """The wheel carries llama.cpp's whole table of words, but no program that reads them: each must at least be in it."""
    program = Path(python_of(EngineKind.LLAMACPP))
    libraries = sorted(program.parents[1].glob("lib/python3*/site-packages/xllamacpp/*.so"))
    table = b"".join(one.read_bytes() for one in libraries)
    model = facts_of({}, [ModelFile("m.gguf", 10**9)])
    plan = LaunchPlan(
        kind=EngineKind.LLAMACPP, program="/l/llama-server", folder="/m", served_as="m", facts=model, gpus=(0,)
    )
    found = launch(plan)
    assert isinstance(found, Launch)
    names = [word for word in found.argv if word.startswith("--")] + [
        name for name, _ in found.env if name.startswith("LLAMA_")
    ]
    assert len(names) > 12
    assert [name for name in names if b"\0" + name.encode() + b"\0" not in table] == []


def test_the_wheels_server_reads_its_words():
    program = python_of(EngineKind.LLAMACPP)
    model = facts_of({}, [ModelFile("m.gguf", 10**9)])
    plan = LaunchPlan(
        kind=EngineKind.LLAMACPP,
        program=program,
        folder="/m",
        served_as="m",
        facts=model,
        package=str(ROOT / "src/holdfast"),
    )
    found = launch(plan)
    assert isinstance(found, Launch)
    assert parsed(found) == ""
    assert "unrecognized arguments: --no-such-word" in parsed(
        structs.replace(found, argv=(*found.argv, "--no-such-word"))
    )
