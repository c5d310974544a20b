"""The GPUs of this machine, as the driver's own tool tells them."""

import shutil
import subprocess

from holdfast.policy.launch_plan import Gpu

ASK_S = 15.0
QUERY = "name,memory.total,compute_cap"
MIB = 1024**2


def gpus_here() -> tuple[Gpu, ...] | None:
    """The GPUs in the order of nvidia-smi; None where it isn't installed or doesn't answer: not known, and not "none"."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    words = (program, f"--query-gpu={QUERY}", "--format=csv,noheader,nounits")
    try:
        told = subprocess.run(words, capture_output=True, text=True, timeout=ASK_S, check=True).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return gpus_told(told)


def gpus_told(text: str) -> tuple[Gpu, ...] | None:
    """nvidia-smi's table of QUERY. None where a line of it can't be understood."""
    found = []
    for line in text.strip().splitlines():
        name, _, rest = line.partition(",")
        memory, _, capability = rest.partition(",")
        major, _, minor = capability.strip().partition(".")
        if not memory.strip().isdigit():
            return None
        known = major.isdigit() and minor.isdigit()
        pair = (int(major), int(minor)) if known else (0, 0)
        found.append(Gpu(name=name.strip(), memory_bytes=int(memory) * MIB, capability=pair))
    return tuple(found)
