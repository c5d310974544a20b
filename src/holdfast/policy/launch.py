"""A plan becomes a command: which profile speaks for which engine, and what holds for all of them.

What no profile may ever say is checked here once more, over the finished command: it listens on loopback, it runs no code that
came with a model, its key is not in its words. Triton alone can be told its key in no other way, and says so.
"""

from collections.abc import Callable

from msgspec import structs

from holdfast.domain.engine import EngineKind, Launch, StartFailure
from holdfast.domain.engine_words import name_of
from holdfast.domain.replica import StartFault
from holdfast.policy.launch_plan import LaunchPlan
from holdfast.policy.profile_llamacpp import is_python, launch_llamacpp
from holdfast.policy.profile_sglang import launch_sglang
from holdfast.policy.profile_triton import launch_on_triton
from holdfast.policy.profile_vllm import launch_vllm

PROFILES: dict[EngineKind, Callable[[LaunchPlan], Launch | StartFailure]] = {
    EngineKind.VLLM: launch_vllm,
    EngineKind.SGLANG: launch_sglang,
    EngineKind.LLAMACPP: launch_llamacpp,
    EngineKind.TRITON: launch_on_triton,
}
FORBIDDEN = ("trust-remote-code", "api-key", "admin-api-key", "middleware")


def launch(plan: LaunchPlan) -> Launch | StartFailure:
    """The command for a plan, or why it would not start; the sentence says what to change."""
    profile = PROFILES.get(plan.kind)
    if profile is None:
        return StartFailure(StartFault.SETTINGS, f"{plan.kind} is not a program that Holdfast runs")
    if not plan.program:
        return StartFailure(StartFault.SETTINGS, f"[engine] program is empty: say where {plan.kind} lies")
    if plan.kind in (EngineKind.VLLM, EngineKind.SGLANG) and not is_python(plan.program):
        why = f"[engine] program: {plan.program} is not a Python: name the one in whose environment {plan.kind} is installed"
        return StartFailure(StartFault.SETTINGS, why)
    found = profile(plan)
    return found if isinstance(found, StartFailure) else _safe(structs.replace(found, gpus=plan.gpus))


def _safe(found: Launch) -> Launch | StartFailure:
    said = [name_of(word) for word in found.argv[1:] if word.startswith("-")]
    wrong = next((word for word in said if word in FORBIDDEN), "")
    if wrong:
        return StartFailure(StartFault.SETTINGS, f"--{wrong} must not stand in an engine's command line")
    if found.key and any(found.key in word for word in found.argv) and found.kind is not EngineKind.TRITON:
        return StartFailure(StartFault.SETTINGS, "the engine's key must not stand in its command line")
    return found
