"""Launches: what a folder is, on how many GPUs it fits, and the command that comes of it, word by word with its reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from holdfast.domain.engine import EngineKind, Launch, StartFailure
from holdfast.domain.replica import StartFault
from holdfast.policy.launch import launch
from holdfast.policy.launch_fit import Fit, Spread, fewest, fit
from holdfast.policy.launch_gpus import Ask, gpus_of, indices_of
from holdfast.policy.launch_plan import Gpu, LaunchPlan, version_of
from holdfast.policy.launch_time import start_s
from holdfast.policy.launch_words import hidden
from holdfast.policy.model_facts import Family, ModelFile, facts_of
from published import CONFIGS, FAMILIES, SIZES, files_of

GIB = 1024**3
H200 = Gpu(name="NVIDIA H200", memory_bytes=int(140.4 * GIB), capability=(9, 0))
H100 = Gpu(name="NVIDIA H100 80GB HBM3", memory_bytes=int(79.6 * GIB), capability=(9, 0))
H20 = Gpu(name="NVIDIA H20", memory_bytes=int(95.6 * GIB), capability=(9, 0))
B200 = Gpu(name="NVIDIA B200", memory_bytes=int(179.1 * GIB), capability=(10, 0))
A100 = Gpu(name="NVIDIA A100-SXM4-80GB", memory_bytes=80 * GIB)
MI300X = Gpu(name="AMD Instinct MI300X", memory_bytes=192 * GIB)


def facts(name):
    return facts_of(CONFIGS[name], files_of(name))


def planned(name="r1", kind=EngineKind.VLLM, gpu=H200, count=8, **more):
    plan = LaunchPlan(
        kind=kind,
        program="/v/bin/python",
        folder="/m",
        served_as="deepseek",
        facts=facts(name),
        ports=(30000, 30001, 30002),
        key="k3y",
        gpus=tuple(range(count)),
        seen=(gpu,) * count if gpu else None,
        context_tokens_max=32768,
        version=(0, 33, 0),
        inherited=(("PATH", "/bin"), ("HOME", "/h"), ("https_proxy", "http://p"), ("VLLM_SERVER_DEV_MODE", "1")),
    )
    return structs.replace(plan, **more)


def words(found):
    assert isinstance(found, Launch), found
    return " ".join(found.argv)


@pytest.mark.parametrize("name", sorted(SIZES))
def test_each_published_folder_is_known(name):
    found = facts(name)
    assert found.family is FAMILIES[name]
    assert found.shards == SIZES[name][1]
    assert found.mla == name.startswith(("v2", "r1", "v3"))


def test_the_shipped_model_is_known_as_small_and_other_files_as_themselves():
    tiny = {**CONFIGS["r1"], "hidden_size": 256, "quantization_config": None}
    found = facts_of(tiny, [ModelFile("model.safetensors", 9_457_464)])
    assert found.family is Family.TINY
    assert found.named() == "a small model of DeepSeek's architecture, bfloat16, 1 file, 9.0 MiB"
    gguf = facts_of({}, [ModelFile("b-00002-of-00002.gguf", 5), ModelFile("b-00001-of-00002.gguf", 7)])
    assert (gguf.gguf, gguf.gguf_bytes, gguf.quantised) == ("b-00001-of-00002.gguf", 12, "gguf")
    assert facts_of({"model_type": "mamba"}, []).family is Family.OTHER


@given(
    st.dictionaries(
        st.sampled_from(sorted({key for one in CONFIGS.values() for key in one} | {"text_config"})),
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(max_size=5)
        | st.lists(st.integers(), max_size=2)
        | st.just({}),
    )
)
def test_any_config_has_facts(config):
    assert facts_of(config, [ModelFile("x.safetensors", 3)]).weights_bytes == 3


# SGLang's documentation of DeepSeek-V3 lists on which machines which numbers fit; one line of it each.
@pytest.mark.parametrize(
    ("name", "gpu", "eight", "words_"),
    [
        ("r1", H200, True, "on each of 8 GPUs (NVIDIA H200, 140.4 GiB)"),
        ("r1", B200, True, "left for the cache"),
        ("r1", MI300X, True, "left for the cache"),
        ("r1", H100, False, "does not fit on 8 x NVIDIA H100 80GB HBM3 (79.6 GiB each): 80.2 GiB of weights on each"),
        ("r1", A100, False, "NVIDIA A100-SXM4-80GB does not compute in FP8, the numbers of DeepSeek-V3/R1 (fp8)"),
        ("v3-awq", A100, True, "left for the cache"),
        ("v3-awq", H100, True, "left for the cache"),
        ("v3.2", A100, False, "does not compute in FP8"),
        ("v4-pro", H100, False, "does not fit"),
        ("v4-pro", H200, True, "left for the cache"),
        ("v4.1-flash", H200, True, "left for the cache"),
        ("llama-70b", A100, True, "left for the cache"),
    ],
)
def test_what_fits_on_eight_gpus(name, gpu, eight, words_):
    found = fit(facts(name), [gpu] * 8, 8, 8192)
    assert isinstance(found, Fit) == eight
    assert words_ in found.why


def test_a_cache_of_heads_is_shared_out_and_a_latent_one_is_not():
    llama, r1 = facts("llama-70b"), facts("r1")
    assert llama.cache_bytes_per_token == 327_680
    assert r1.cache_bytes_per_token == 70_272
    eight = fit(llama, [H200] * 8, 8, 1000)
    assert eight.tokens > 2_000_000
    r1_eight = fit(r1, [H200] * 8, 8, 1000)
    assert 600_000 < r1_eight.tokens < 700_000


def test_sparse_models_keep_attention_whole_on_each_gpu_where_that_fits():
    assert fit(facts("v3.2"), [H200] * 8, 8, 32768).spread == Spread(data=8, experts=True)
    assert fit(facts("v3.2"), None, 8, 32768).spread == Spread(tensor=8, experts=True)


def test_heads_that_can_not_be_shared_out_are_told():
    found = fit(facts("qwen-1.5b"), [H200] * 8, 8, 1000)
    assert found == StartFailure(
        StartFault.SETTINGS,
        "R1-Distill-Qwen has 12 attention heads, which 8 GPUs can't share out evenly: set [engine] gpus to 1, 2, 4 or 8",
    )


def test_the_fewest_gpus_are_found():
    assert [fewest(facts(name), [A100] * 8, 8192) for name in ("qwen-7b", "qwen-32b", "llama-70b", "r1")] == [
        1,
        2,
        4,
        0,
    ]


def ask(**more):
    return structs.replace(Ask(devices=(0, 1, 2, 3, 4, 5, 6, 7), seen=(H200,) * 8, number=0, replicas=2), **more)


def test_replicas_get_gpus_of_their_own():
    qwen = facts("qwen-32b")
    assert gpus_of(qwen, ask()) == (0,)
    assert gpus_of(qwen, ask(number=1, wanted=4)) == (4, 5, 6, 7)
    assert gpus_of(qwen, ask(devices=())) == ()
    refused = gpus_of(qwen, ask(number=2, wanted=4))
    assert refused.code is StartFault.DEVICE
    assert "replica 2 needs 4 GPUs of its own, and [replica] devices names 8, enough for 2 replicas" in refused.why
    assert gpus_of(qwen, ask(number=2, wanted=4, args=("--gpu-memory-utilization", "0.4"))) == (0, 1, 2, 3)
    assert gpus_of(facts("r1"), ask()) == tuple(range(8))
    assert gpus_of(facts("r1"), ask(seen=None)) == (0, 1, 2, 3)
    missing = gpus_of(qwen, ask(seen=(H200,)))
    assert "devices names cuda:1, and this machine has 1 GPU: name those that are there" in missing.why
    assert indices_of("cuda:3, cuda:1,cpu") == (3, 1)


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


def test_each_word_has_its_sentence_and_the_key_is_in_none():
    for kind in (EngineKind.VLLM, EngineKind.SGLANG):
        found = launch(planned(kind=kind, args=("--x", "1")))
        told = " ".join(word for word, _ in found.why if "=" not in word or word.startswith("-"))
        assert told == " ".join(found.argv)
        assert all(sentence for _, sentence in found.why)
        assert "k3y" not in str(hidden(found.why, "k3y"))


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


def test_the_sites_words_win_and_come_last():
    found = words(launch(planned(args=("-tp", "4", "--gpu_memory_utilization=0.8"))))
    assert "--tensor-parallel-size" not in found
    assert "--gpu-memory-utilization" not in found
    assert found.endswith("-tp 4 --gpu_memory_utilization=0.8")
    assert dict(launch(planned(env=("NCCL_DEBUG=WARN",))).env)["NCCL_DEBUG"] == "WARN"


def test_no_plan_gets_past_the_last_look():
    for word in ("--trust-remote-code", "--api-key=x", "--middleware"):
        found = launch(planned(args=(word,)))
        assert isinstance(found, StartFailure)
        assert "must not stand in an engine's command line" in found.why
    assert "key must not stand in its command line" in launch(planned(args=("--x", "k3y"))).why
    assert launch(planned(program="")).why == "[engine] program is empty: say where vllm lies"
    assert launch(planned(kind=EngineKind.OPENAI)).why == "openai is not a program that Holdfast runs"


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


def test_sglang_gets_its_key_by_a_file_and_wants_gpus():
    found = launch(planned(kind=EngineKind.SGLANG))
    assert found.files == (("sglang.yaml", 'api-key: "k3y"\n'),)
    assert "--tp-size 8" in words(found)
    assert "--max-running-requests 32 --max-queued-requests 128" in words(found)
    assert "--tp-size 8 --enable-dp-attention --dp-size 8 --ep-size 8" in words(
        launch(planned("v3.2", kind=EngineKind.SGLANG))
    )
    assert launch(planned(kind=EngineKind.SGLANG, gpus=())).code is StartFault.DEVICE


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
    assert "run them with engine llamacpp" in launch(structs.replace(plan, kind=EngineKind.VLLM)).why
    crowded = launch(structs.replace(plan, gpus=(0,), seen=(H100,)))
    assert any('[engine] args = ["--cpu-moe"]' in one for one in crowded.warnings)


def test_versions_are_read():
    told = [version_of(text) for text in ("0.32.0", "0.33.0+cu130", "v0.5.23.post1", "b1234", "dev", "")]
    assert told == [(0, 32, 0), (0, 33, 0), (0, 5, 23), (1234,), (), ()]
    assert planned(version=(0, 31, 2)).older_than(0, 32)
    assert not planned(version=()).older_than(0, 32)


def test_a_start_has_time_by_the_size_of_its_weights():
    assert [start_s(size, gpus) for size, gpus in ((0, False), (10**10, True), (10**13, True))] == [180, 620, 3600]
