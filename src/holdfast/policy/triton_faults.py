"""What Triton Inference Server says when something is wrong, and whose fault it is. Its streams carry sentences without codes."""

import re

from msgspec import Struct

from holdfast.domain.fault import BadRequest, EngineLost, EngineRefused, Fault
from holdfast.domain.triton import BAD, FAILED, REFUSED

# python_backend: the process that runs the model is dead or frozen, while every health endpoint stays green
SICK = re.compile(
    r"Stub process .* is not healthy|Failed to (send|receive) .*stub|stub process has exited", re.IGNORECASE
)
_AWAY = re.compile(
    r"no available versions|unknown model|is not ready|not found|Exceeds maximum queue size|"
    r"Server exiting|server is stopping|Server not ready|unloading|failed to connect|This protocol is restricted",
    re.IGNORECASE,
)
_CUT = re.compile(r"Socket closed|Connection reset|GOAWAY|Broken pipe|RST_STREAM|recvmsg", re.IGNORECASE)
_OWN_FAULT = re.compile(
    r"unexpected (inference input|shape)|expected \d+ inputs but got|invalid argument|inference input data-type|"
    r"input tensor .* (size|shape)|request (must|batch-size)|exceeds? (the )?max(imum)? (input|sequence|context)",
    re.IGNORECASE,
)
_REFUSING = ("UNAVAILABLE", "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED")


class Reading(Struct, frozen=True):
    """The fault, and whether the process that runs the model is dead or frozen: it needs a repair."""

    fault: Fault
    sick: bool = False


def read(said: str, code: str, begun: bool) -> Reading:
    """`said` is Triton's sentence, `code` the gRPC status's name or empty, `begun` whether ids had come before it."""
    words = " ".join(said.split())[:300]
    if SICK.search(said):
        return Reading(EngineLost(f"Triton's model process is dead or frozen: {words}"), sick=True)
    for mark in (REFUSED, BAD, FAILED):
        _, found, rest = said.partition(mark)
        if found:
            return Reading(_own(mark, rest.strip(), begun))
    if code == "INVALID_ARGUMENT" or (not begun and _OWN_FAULT.search(said)):
        return Reading(BadRequest(f"Triton can't serve this request: {words}", "request").saying(words))
    if code == "DEADLINE_EXCEEDED":
        return Reading(EngineLost("Triton did not answer in time"))
    if not begun and not _CUT.search(said) and (code in _REFUSING or _AWAY.search(said)):
        return Reading(EngineRefused(f"Triton takes no work: {words}").saying(words))
    kind = f"{code} " if code else ""
    return Reading(EngineLost(f"Triton ended the answer: {kind}{words}").saying(words))


def _own(mark: str, rest: str, begun: bool) -> Fault:
    """What Holdfast's own model says."""
    if mark == BAD:
        param, _, why = rest.partition(": ")
        code = "context_length_exceeded" if "leaves no room in a context" in why else None
        return BadRequest(why or rest, param, code).saying(why or rest)
    if mark == REFUSED and not begun:
        return EngineRefused(rest)
    return EngineLost(rest)
