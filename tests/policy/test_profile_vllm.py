"""vLLM's command for each generation, on GPUs and on CPU."""

from holdfast.domain.replica import StartFault
from holdfast.policy.launch import launch
from holdfast.policy.launch_time import start_s
from holdfast.policy.model_facts import ModelFile, facts_of
from plans import A100, H20, H100, facts, planned, words
from published import CONFIGS


def test_vllm_serves_r1_on_eight_h200():
    found = launch(planned())
    said = words(found)
    assert said.startswith(
        "/v/bin/python -m vllm.entrypoints.launchers.api_server.entry --model /m --served-model-name deepseek"
    )
    for part in (
        "--host 127.0.0.1 --port 30000",
        "--max-model-len 32768 --max-num-seqs 32 --max-num-queued-reqs 160",
        "--tensor-parallel-size 8 --enable-expert-parallel --gpu-memory-utilization 0.92",
    ):
        assert part in said
    for never in ("trust-remote-code", "--reasoning-parser", "--tool-call-parser", "--chat-template", "k3y", "--dtype"):
        assert never not in said
    env = dict(found.env)
    assert env["VLLM_API_KEY"] == "k3y"
    assert env["CUDA_VISIBLE_DEVICES"] == "0,1,2,3,4,5,6,7"
    assert env["HF_HUB_OFFLINE"] == env["TRANSFORMERS_OFFLINE"] == env["VLLM_NO_USAGE_STATS"] == "1"
    assert not {"https_proxy", "VLLM_SERVER_DEV_MODE"} & set(env)
    assert found.url == "http://127.0.0.1:30000"
    assert found.start_s == start_s(facts("r1").weights_bytes, True) == 1978
    assert env["VLLM_ENGINE_READY_TIMEOUT_S"] == "1978"


def test_generations_have_words_of_their_own():
    assert "--kernel-config.enable_flashinfer_autotune=False" in words(launch(planned("v3.2")))
    assert "--data-parallel-size 8 --enable-expert-parallel" in words(launch(planned("v3.2")))
    assert "--max-num-seqs 4 --max-num-queued-reqs 160" in words(launch(planned("v3.2")))
    assert "--kv-cache-dtype fp8 --block-size 256" in words(launch(planned("v4-flash")))
    assert "--dtype bfloat16" in words(launch(planned("v2-lite", count=1)))
    old = launch(planned("v4.1-flash", version=(0, 29, 1)))
    assert old.why == "vLLM 0.29.1 does not know DeepSeek-V4.1: it needs 0.30 or later"
    assert dict(launch(planned("v3-awq", gpu=H20)).env)["VLLM_USE_DEEP_GEMM"] == "0"
    assert "VLLM_USE_DEEP_GEMM" not in dict(launch(planned()).env)


def test_an_unknown_version_gets_no_word_that_it_may_lack():
    found = launch(planned(version=()))
    assert "--max-num-queued-reqs" not in words(found)
    assert "-m vllm.entrypoints.openai.api_server" in words(found)
    assert any("version is not known" in one for one in found.warnings)


def test_what_does_not_fit_is_tried_where_the_site_insists():
    assert launch(planned(gpu=H100)).code is StartFault.MEMORY
    found = launch(planned(gpu=H100, insist=True))
    assert "--tensor-parallel-size 8" in words(found)
    assert "It is tried, as [engine] gpus says 8." in found.warnings[0]
    assert launch(planned(gpu=A100, insist=True)).code is StartFault.DEVICE


def test_vllm_on_cpu_takes_what_it_needs_there():
    tiny = {**CONFIGS["r1"], "hidden_size": 256, "num_hidden_layers": 4, "quantization_config": None}
    small = facts_of({**tiny, "rope_scaling": None}, [ModelFile("model.safetensors", 9_457_464)])
    found = launch(planned(facts=small, gpus=(), seen=None, context_tokens_max=1024))
    said = words(found)
    assert '--dtype float32 --enforce-eager --compilation-config {"custom_ops":["-rotary_embedding"]}' in said
    env = dict(found.env)
    assert (env["CUDA_VISIBLE_DEVICES"], env["VLLM_CPU_KVCACHE_SPACE"], env["OMP_NUM_THREADS"]) == ("", "1", "1")
    assert "VLLM_MLA_DISABLE" not in env
    stretched = facts_of(tiny, [ModelFile("model.safetensors", 9_457_464)])
    assert "--compilation-config" not in words(launch(planned(facts=stretched, gpus=(), seen=None)))
    other = facts_of({**tiny, "kv_lora_rank": 64}, [ModelFile("model.safetensors", 9_457_464)])
    assert dict(launch(planned(facts=other, gpus=(), seen=None)).env)["VLLM_MLA_DISABLE"] == "1"
    unnamed = facts_of({**tiny, "topk_method": None}, [ModelFile("model.safetensors", 9_457_464)])
    assert 'write "topk_method": "noaux_tc"' in launch(planned(facts=unnamed, gpus=(), seen=None)).why
    assert "no kernels for the sparse attention" in launch(planned("v3.2", gpus=(), seen=None)).why
