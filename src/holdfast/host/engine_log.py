"""What an engine program says, as lines: bounded in length and number, without colours, with the level of each.

Progress bars end their lines with a carriage return; so that counts as an end too, and two together as one.
"""

import logging
import re
from collections import deque

LINE_CHARS_MAX = 4096
LINES_KEPT = 200
_ENDS = re.compile(rb"[\r\n]+")
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_WORDS = {"CRITICAL": logging.ERROR, "FATAL": logging.ERROR, "ERROR": logging.ERROR, "WARNING": logging.WARNING}
_WORDS |= {"WARN": logging.WARNING, "error": logging.ERROR, "warning": logging.WARNING}
_LETTERS = {"E": logging.ERROR, "F": logging.ERROR, "W": logging.WARNING}
# A level is told by its place: `ERROR 11-29 18:46:37 [core.py:123]` (vLLM, behind the name of a process too), `[2026-11-29
# 18:46:37 TP0] ERROR: ...` (SGLang), `ERROR:    ...` (uvicorn), `E1129 18:46:37.123456 ...` (glog: Triton), `error: ...` and
# `0.00.123.456 E ...` (llama.cpp).
_HEAD = r"^(?:\([^)]*\)\s*)?(?:\[[^\]]*\]\s*)*"
_WORD = re.compile(_HEAD + r"(" + "|".join(_WORDS) + r")(?::|\s|\])")
_LETTER = re.compile(r"^(?:[\d.]{6,}\s+)?([EFW])(?:\d{4}\s\d\d:|\s)")
_THROWN = re.compile(
    _HEAD + r"(?:\w+\s\d\d-\d\d\s[\d:]+\s\[[^\]]*\]\s*)?(?:\w+\.)*\w+(?:Error|Exception|Interrupt)(?::|$)"
)


class Lines:
    """Bytes in, whole lines out. What is longer than LINE_CHARS_MAX loses its end."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that are complete now, empty ones left out."""
        *whole, rest = _ENDS.split(self._rest + data)
        found = [self._text(one) for one in whole]
        self._rest = rest[: LINE_CHARS_MAX * 4]
        return [one for one in found if one]

    def end(self) -> list[str]:
        """The last line, when nobody is left to end it."""
        return self.feed(b"\n")

    def _text(self, line: bytes) -> str:
        text = _COLOURS.sub("", line.decode("utf-8", "replace")).rstrip()
        return text if len(text) <= LINE_CHARS_MAX else text[:LINE_CHARS_MAX] + " ..."


class Tail:
    """The last lines of a program, and the last of them that told of an error."""

    def __init__(self, kept: int = LINES_KEPT) -> None:
        self._lines: deque[str] = deque(maxlen=kept)
        self._error = ""

    def add(self, line: str) -> None:
        self._lines.append(line)
        if level_of(line) >= logging.ERROR:
            self._error = line

    def lines(self) -> list[str]:
        return list(self._lines)

    def last_error(self) -> str:
        """The last line that told of an error; where none did, the last line; empty where nothing was said."""
        return self._error or (self._lines[-1] if self._lines else "")


def level_of(line: str) -> int:
    """logging.ERROR or logging.WARNING; logging.INFO for what is neither, or can't be told. The last line of a Python
    traceback is an error, whatever stands before it."""
    if _THROWN.match(line):
        return logging.ERROR
    word = _WORD.match(line)
    if word:
        return _WORDS[word[1]]
    letter = _LETTER.match(line)
    return _LETTERS[letter[1]] if letter else logging.INFO
