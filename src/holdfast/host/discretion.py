"""A process that handles prompts keeps them to itself when it goes wrong: no core files, no messages of exceptions on stderr.

What it says instead is in domain/last_words.py.
"""

import asyncio
import logging
import resource
import sys
import threading
from types import TracebackType
from typing import Any

from holdfast.domain.last_words import lines_of, told_of

# A limit of 0 is not asked about where core_pattern names a program (core(5)); one byte stops files and pipes alike.
NO_CORE_BYTES = 1


class Discreet(logging.Formatter):
    """Log records as ever, their exceptions without messages."""

    def format(self, record: logging.LogRecord) -> str:
        error = record.exc_info[1] if record.exc_info else None
        said = f"{self.formatTime(record)} {record.name} {record.getMessage()}"
        return f"{said}\n{lines_of(error)}" if error is not None else said


def be_discreet(core_dumps: bool = False) -> None:
    """Call it once at the start of a process."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    soft = hard if core_dumps or hard == 0 else NO_CORE_BYTES
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    sys.excepthook, threading.excepthook, sys.unraisablehook = _uncaught, _in_thread, _unraisable
    for handler in (*logging.getLogger().handlers, logging.lastResort):
        if handler is not None:
            handler.setFormatter(Discreet())


def keep_quiet(loop: asyncio.AbstractEventLoop) -> None:
    """The same for an event loop, whatever PYTHONASYNCIODEBUG says: in debug mode it prints arguments of slow calls."""
    loop.set_debug(False)
    loop.set_exception_handler(_on_loop)


def _on_loop(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What happened, without the objects that it happened to."""
    error = context.get("exception")
    said = lines_of(error) if isinstance(error, BaseException) else "no exception"
    print(f"{context.get('message', 'something went wrong in the loop')}\n{said}", file=sys.stderr, flush=True)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    print(lines_of(error), file=sys.stderr, flush=True)


def _in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        print(f"in a thread:\n{lines_of(args.exc_value)}", file=sys.stderr, flush=True)


def _unraisable(args: "sys.UnraisableHookArgs") -> None:
    if args.exc_value is not None:
        print(f"nobody could hear: {told_of(args.exc_value)}", file=sys.stderr, flush=True)
