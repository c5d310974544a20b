"""Why an engine process could not start, sorted: the exit code tells the supervisor that trying again changes nothing.

Its last words say what was wrong and what to do; supervision shows them and keeps the replica stopped until `holdfast undrain`.
"""

import errno

from msgspec import Struct

from holdfast.domain.replica import StartFault
from holdfast.pearl.options import BadDevice, BadModel

# what torch and the C library say when memory is short; torch raises RuntimeError for it, or a subclass
MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc", "not enough memory")


class Verdict(Struct, frozen=True):
    """What the process ends with."""

    code: StartFault
    why: str


def start_fault(error: Exception) -> Verdict | None:
    """Sort an exception of the start; None for one that is nobody's setting but our mistake."""
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
