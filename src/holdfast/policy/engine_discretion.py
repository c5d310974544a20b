"""What may be kept of a line that a foreign engine says while it serves: no more than that something happened, and where.

An error quotes what was being worked on, and that is somebody's prompt, as text or as ids. So of a line its head is kept (level,
time, place in the source), the kind of an exception, the places of a traceback, and whole lines only of the forms known here:
throughput, requests by path and status. Before it serves nobody has asked it anything, and all is kept.
"""

import re

from holdfast.domain.last_words import SHORT_OF_MEMORY
from holdfast.policy.engine_end import NAMED

MESSAGE_CHARS_MAX = 200
OF_DEVICES = ("CUDA ", "NCCL ")  # messages that begin so quote nobody
# vLLM and uvicorn; SGLang; glog (Triton); llama.cpp
_HEADS = (
    r"(?:\([A-Za-z_ ]+\d*(?: pid=\d+)?\) )?(?:ERROR|WARNING|INFO|CRITICAL|DEBUG) \d\d-\d\d \d\d:\d\d:\d\d \[[\w./]+:\d+\]",
    r"(?:ERROR|WARNING|INFO|CRITICAL):",
    r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[\w ]*\](?: (?:ERROR|WARNING|INFO|CRITICAL):)?",
    r"[IWEF]\d{4} \d\d:\d\d:[\d.]+ \d+ [\w.]+:\d+\]",
    r"(?:[\d.]{6,} [IWED] )?(?:srv|slot|que|main|cmn) +\w+:",
)
_HEAD = re.compile("|".join(_HEADS))
_FIGURES = r"[\w ,.:;%/#()=<>+-]*"
_KNOWN = (
    rf"Engine \d+: Avg prompt throughput: {_FIGURES}",
    rf"(?:SpecDecoding|Prefix cache|KV [Cc]ache) {_FIGURES}",
    rf"(?:Decode|Prefill) batch[,.]? {_FIGURES}",
    r'[\d.:a-f\[\]]+ - "(?:GET|POST) /[\w/.-]* HTTP/1\.[01]" \d{3}[\w ]*',
    r"all slots are idle|model loaded|Shutting down|Waiting for application shutdown\.|Application shutdown complete\.",
)
_WHOLE = re.compile("|".join(f"(?:{one})" for one in _KNOWN))
_PLACE = re.compile(r'\s*(File "[^"]+", line \d+, in [\w<>.]+|Traceback \(most recent call last\):)')


def discreet(line: str) -> str:
    """The line as it may be kept; empty when nothing of it may be."""
    found = _HEAD.match(line)
    head = found[0] if found else ""
    said = line[len(head) :].strip()
    kept = _message(said)
    return " ".join(one for one in (head, kept) if one)


def _message(said: str) -> str:
    if _WHOLE.fullmatch(said):
        return said[: MESSAGE_CHARS_MAX * 2]
    if _PLACE.fullmatch(said):
        return said
    named = NAMED.match(said)
    if named is None:
        return ""
    words = said[named.end() :].removeprefix(":").strip()
    if SHORT_OF_MEMORY in words.lower():
        words = SHORT_OF_MEMORY
    elif not words.startswith(OF_DEVICES):
        return named[1]
    return f"{named[1]}: {words[:MESSAGE_CHARS_MAX]}"
