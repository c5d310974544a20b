"""How Triton Inference Server is run: the embedded engine inside its Python backend, token ids in and out, exact.

Triton's vLLM and TensorRT-LLM backends are used where they run already, by `[replica] url`: what they need besides a model
folder (an image, a built engine) is not Holdfast's to make.
"""

from msgspec import structs

from holdfast.domain.engine import Launch, StartFailure
from holdfast.domain.replica import StartFault
from holdfast.domain.triton import STREAM, PearlPlan
from holdfast.policy.launch_fit import Fit, fit
from holdfast.policy.launch_plan import LaunchPlan
from holdfast.policy.launch_time import start_s
from holdfast.policy.model_facts import DISTILLS, Family
from holdfast.policy.triton_launch import TritonPlan, launch_triton
from holdfast.policy.triton_repository import PearlServing, pearl_repository

SERVED = (Family.TINY, Family.V2_LITE, Family.V2, Family.V3, Family.V31, *DISTILLS)


def launch_on_triton(plan: LaunchPlan) -> Launch | StartFailure:
    """The command for a plan, or why there can't be one."""
    facts = plan.facts
    if plan.triton is None:
        return StartFailure(
            StartFault.SETTINGS, f"{plan.program} is no tritonserver, and no Python with nvidia-pytriton"
        )
    if facts.family not in SERVED:
        why = f"inside Triton the embedded engine computes, which does not serve {facts.family}"
        return StartFailure(
            StartFault.MODEL, f"{why}: run vLLM or SGLang, or name a Triton that serves it with [replica] url"
        )
    if len(plan.gpus) > 1:
        why = "inside Triton the embedded engine computes, on one GPU"
        return StartFailure(StartFault.DEVICE, f"{why}: set [engine] gpus to 1")
    found = fit(facts, plan.seen, 1, plan.context) if plan.gpus else None
    if isinstance(found, StartFailure) and not plan.insist:
        return found
    inside = PearlPlan(
        model=plan.folder,
        serve_as=plan.served_as,
        slots=plan.slots,
        context_tokens_max=plan.context,
        queue_max=plan.queue_max,
        dtype=plan.dtype,
        threads=plan.threads,
        device="cuda:0" if plan.gpus else "cpu",
    )
    made = launch_triton(
        TritonPlan(
            install=plan.triton,
            folder=plan.room,
            files=pearl_repository(PearlServing(plan=inside, paths=plan.python_paths)),
            models=(STREAM,),
            grpc_port=plan.ports[0],
            http_port=plan.ports[1],
            metrics_port=plan.ports[2],
            key=plan.key,
            gpus=plan.gpus,
            threads=plan.threads,
            start_s=plan.start_s or start_s(facts.weights_bytes, bool(plan.gpus)),
        )
    )
    told = found.why if isinstance(found, Fit) else ""
    return structs.replace(
        made,
        argv=(*made.argv, *plan.args),
        env=(*made.env, *(tuple(one.partition("=")[::2]) for one in plan.env)),
        why=(*made.why, *((" ".join(plan.args), "[engine] args") for _ in plan.args[:1])),
        warnings=(
            *made.warnings,
            *((f"{found.why}. It is tried, as [engine] gpus says.",) if found and not told else ()),
        ),
    )
