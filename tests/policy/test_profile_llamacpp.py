"""llama.cpp's command, of its binary and of the wheel's server."""

from msgspec import structs

from holdfast.domain.engine import EngineKind
from holdfast.policy.launch import launch
from holdfast.policy.model_facts import ModelFile, facts_of
from plans import H100, planned, words


def test_llamacpp_runs_its_binary_or_the_wheels_server():
    model = facts_of(
        {}, [ModelFile("r1-Q4_K_M-00001-of-00002.gguf", 200 * 10**9), ModelFile("r1-Q4_K_M-00002-of-00002.gguf", 1)]
    )
    plan = planned(kind=EngineKind.LLAMACPP, facts=model, program="/l/llama-server", slots=4, context_tokens_max=4096)
    found = launch(plan)
    assert "--model /m/r1-Q4_K_M-00001-of-00002.gguf" in words(found)
    assert "--parallel 4 --ctx-size 16384" in words(found)
    assert "--n-gpu-layers 999 --metrics --no-webui" in words(found)
    assert dict(found.env)["LLAMA_API_KEY"] == "k3y"
    assert "CACHE_TYPE" not in str(found.env)
    wheel = launch(structs.replace(plan, program="/x/bin/python3", package="/p/holdfast", gpus=(), seen=None))
    assert words(wheel).startswith("/x/bin/python3 /p/holdfast/engine/llamacpp_serve.py --model /m/r1")
    assert words(wheel).endswith("--slots 4 --context 4096 --threads 1 --exact")
    assert launch(planned(kind=EngineKind.LLAMACPP)).why.startswith(
        "/m holds no .gguf file, and llama.cpp opens nothing else"
    )
    assert (
        "run them with engine llamacpp" in launch(structs.replace(plan, kind=EngineKind.VLLM, program="/v/python")).why
    )
    crowded = launch(structs.replace(plan, gpus=(0,), seen=(H100,)))
    assert any('[engine] args = ["--cpu-moe"]' in one for one in crowded.warnings)
