"""Triton with the embedded engine inside."""

from msgspec import structs

from holdfast.domain.engine import EngineKind
from holdfast.policy.launch import launch
from holdfast.policy.triton_launch import TritonInstall
from plans import facts, planned, words


def test_triton_runs_the_embedded_engine():
    plan = planned("v2-lite", kind=EngineKind.TRITON, count=0, seen=None, room="/r", args=("--log-info=false",))
    assert "no tritonserver" in launch(plan).why
    plan = structs.replace(plan, triton=TritonInstall(binary="/t/tritonserver", backends="/t/backends"))
    found = launch(plan)
    assert words(found).startswith("/t/tritonserver --model-repository=/r/models")
    assert found.argv[-1] == "--log-info=false"
    assert found.url == "grpc://127.0.0.1:30000"
    assert '"/m"' in str(found.files).replace("\\", "")
    assert (
        "does not serve DeepSeek-V4-Flash: run vLLM or SGLang"
        in launch(structs.replace(plan, facts=facts("v4-flash"))).why
    )
    assert "set [engine] gpus to 1" in launch(structs.replace(plan, gpus=(0, 1))).why
