"""Why an engine process could not start, sorted: the exit code tells the supervisor that trying again changes nothing.

Its last words say what was wrong and what to do; supervision shows them and keeps the replica stopped until `holdfast undrain`.
"""

import errno

from msgspec import Struct

from holdfast.domain.replica import StartFault
from holdfast.host.engine_process import EngineNotStarted
from holdfast.pearl.options import BadDevice, BadModel

# what torch and the C library say when memory is short; torch raises RuntimeError for it, or a subclass
MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc", "not enough memory")


AGAIN = 1  # the exit code of a start that may succeed the next time


class Verdict(Struct, frozen=True):
    """What the process ends with: one of StartFault's codes, or AGAIN."""

    code: int
    why: str


def start_fault(error: Exception) -> Verdict | None:
    """Sort an exception of the start; None for one that is nobody's setting but our mistake."""
    if isinstance(error, EngineNotStarted):  # a foreign engine: its log was read already
        return Verdict(AGAIN if error.code is None else error.code, " ".join(error.why.split()))
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    short = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if isinstance(error, MemoryError) or short or any(words in text.lower() for words in MEMORY_WORDS):
        fix = "Fewer [replica] slots, a smaller context_tokens_max, or a device with more room"
        return Verdict(StartFault.MEMORY, f"out of memory while loading: {text}. {fix}")
    if isinstance(error, BadDevice):
        return Verdict(StartFault.DEVICE, f"{text}. Choose others with [replica] devices")
    if isinstance(error, BadModel):
        return Verdict(StartFault.MODEL, text)
    if isinstance(error, OSError):
        return Verdict(StartFault.ADDRESS if "can't listen" in text else StartFault.MODEL, text)
    return None if isinstance(error, RuntimeError) else Verdict(StartFault.SETTINGS, text)
