"""Model repositories as text. What a real Triton makes of the first of them is in tests/live/test_triton.py."""

import json

import pytest

from holdfast.domain.triton import PearlPlan
from holdfast.policy.triton_repository import (
    Files,
    PearlServing,
    TensorRtServing,
    pearl_repository,
    tensorrt_repository,
    vllm_repository,
)

PLAN = PearlPlan(model='/models/a "b"', slots=7)
SERVING = PearlServing(plan=PLAN, paths=("/site", "/src"), unary_batch_max=8)
ALL = [
    pearl_repository(SERVING),
    vllm_repository("vllm_model", {"model": "deepseek-ai/DeepSeek-V2-Lite"}),
    tensorrt_repository(TensorRtServing(engine_dir="/engines/r1")),
]


def config(files: Files, name: str) -> str:
    return dict(files)[f"{name}/config.pbtxt"]


@pytest.mark.parametrize("files", ALL)
def test_none_has_a_queue_policy_and_all_are_decoupled(files: Files) -> None:
    texts = [text for path, text in files if path.endswith("config.pbtxt")]
    assert not any("default_queue_policy" in text for text in texts)
    assert "decoupled: true" in texts[0]
    for text in texts:
        assert text.count("{") == text.count("}") + json.dumps(PLAN.model).count("{")
        assert text.count("[") == text.count("]")


def test_the_decoupled_model_answers_each_request_alone_and_the_unary_one_gathers_them() -> None:
    files = pearl_repository(SERVING)
    stream, unary = config(files, "holdfast"), config(files, "holdfast_unary")
    assert "max_batch_size: 0" in stream
    assert "dynamic_batching" not in stream
    assert "max_batch_size: 8" in unary
    assert "dynamic_batching { max_queue_delay_microseconds: 15000 }" in unary
    assert "decoupled: false" in unary
    assert "allow_ragged_batch: true" in unary, "prompts have different lengths"
    assert "model_warmup" in stream
    assert "batch_size: 1 count: 1" in stream, "Triton passes over samples of size 0"


def test_without_a_unary_batch_there_is_one_model() -> None:
    files = pearl_repository(PearlServing(plan=PLAN, paths=()))
    assert {path.split("/")[0] for path, _ in files} == {"holdfast"}


def test_instances_go_to_the_gpus_that_are_named() -> None:
    on_cpu = config(pearl_repository(SERVING), "holdfast")
    on_gpu = config(pearl_repository(PearlServing(plan=PLAN, paths=(), instances=2, gpus=(0, 3))), "holdfast")
    assert "instance_group [ { count: 1 kind: KIND_CPU } ]" in on_cpu
    assert "instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0, 3 ] } ]" in on_gpu


def test_the_plan_and_the_paths_come_through_quoted() -> None:
    files = pearl_repository(SERVING)
    quoted = config(files, "holdfast").split('key: "plan" value { string_value: ')[1].split(" } }")[0]
    assert json.loads(json.loads(quoted))["model"] == PLAN.model
    assert json.loads(dict(files)["holdfast/paths.json"]) == ["/site", "/src"]
    compile(dict(files)["holdfast/1/model.py"], "model.py", "exec")


def test_vllm_never_runs_code_that_came_with_a_model() -> None:
    files = vllm_repository("v", {"model": "/m", "trust_remote_code": True, "tensor_parallel_size": 8})
    args = json.loads(dict(files)["v/1/model.json"])
    assert args["trust_remote_code"] is False
    assert args["tensor_parallel_size"] == 8
    assert 'backend: "vllm"' in config(files, "v")


def test_tensorrt_has_what_its_adapter_sends() -> None:
    text = config(tensorrt_repository(TensorRtServing(engine_dir="/engines/r1", batch_max=16)), "tensorrt_llm")
    for name in ("input_ids", "input_lengths", "request_output_len", "streaming", "stop", "stop_words_list", "seed"):
        assert f'name: "{name}"' in text
    assert 'key: "gpt_model_path" value { string_value: "/engines/r1" }' in text
    assert "max_batch_size: 16" in text
