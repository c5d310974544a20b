"""How did a foreign engine end: of its own fault, or from outside? Read from its exit and its last lines.

policy/poison.py judges the requests that were in flight by it, so the difference matters: a crash speaks against them, a
SIGKILL does not. Only kinds are let through, never what a line says besides: lines of an engine may quote a prompt
(domain/last_words.py).

An engine of several processes dies in two steps: the one that computes ends, and the one that holds the door notices,
complains and follows. What the second says of the first (EngineDeadError and the like) is no fault of its own; if nothing else
was said, the first was ended from outside.
"""

import re
from collections.abc import Sequence

from holdfast.domain.engine import EngineKind

NAMED = re.compile(r"(?<![\w.])((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Fault))(?=:|\s*$)")
HEARSAY = (
    "EngineDeadError",
    "EngineGenerateError",
    "CancelledError",
    "ConnectionResetError",
    "ConnectionError",
    "BrokenPipeError",
    "EOFError",
    "ClientDisconnect",
)
# how the processes below the first one call themselves without which an engine makes no token: vLLM's and SGLang's titles. Triton
# goes on without one model's process, which can be replaced.
VITAL: dict[EngineKind, tuple[str, ...]] = {
    EngineKind.VLLM: ("VLLM::EngineCore", "VLLM::Worker"),
    EngineKind.SGLANG: ("sglang::scheduler", "sglang::detokenizer"),
}
SHORT_OF_MEMORY = "out of memory"
OWN_SIGNALS = {4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 11: "SIGSEGV"}  # what a process brings upon itself
LINES_MAX = 120  # further back is another story


def crash_of(kind: str, exit_code: int | None, lines: Sequence[str]) -> str:
    """Half a sentence for the black box; empty when it was ended from outside, or nothing tells otherwise.

    `exit_code` as Popen has it, negative for a signal; None when it is not known.
    """
    named = [found for line in lines[-LINES_MAX:] if (found := _named(line))]
    if named:
        return f"engine {kind}: {named[-1]}"
    if exit_code is not None and -exit_code in OWN_SIGNALS:
        return f"engine {kind}: {OWN_SIGNALS[-exit_code]}"
    return ""


def _named(line: str) -> str:
    """The exception that a line names, as a kind."""
    for match in reversed(list(NAMED.finditer(line))):
        name: str = match.group(1)
        if name.rpartition(".")[2] not in HEARSAY:
            return f"{name}: {SHORT_OF_MEMORY}" if SHORT_OF_MEMORY in line.lower() else name
    return ""
