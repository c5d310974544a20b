"""Model repositories for Triton Inference Server, as text: which files stand in them for each way to serve DeepSeek.

Three ways: the embedded engine through the Python backend (ids, exact), vLLM through Triton's vLLM backend (text only) and
TensorRT-LLM (ids). Nowhere a `default_queue_policy`: with one, bursts were served in steps of half a second (Triton 2.51;
triton-inference-server/server issues 5783, 6796); limits and deadlines belong to Holdfast's gateway.
"""

import json

import msgspec
from msgspec import Struct, structs

from holdfast.domain.triton import INPUTS, OUTPUTS, STREAM, UNARY, PearlPlan

Files = tuple[tuple[str, str], ...]  # path within the repository, text

QUEUE_DELAY_US = 15_000
_TYPES = {"BYTES": "TYPE_STRING"}
_MODEL_PY = '''"""Written by Holdfast: the model itself is holdfast.pearl.triton_model, found by the paths of paths.json."""

import json
import sys

import numpy
import triton_python_backend_utils as pb_utils

# Triton's own packages stay first: numpy, which it has loaded above, must be the one that its stub was built for.
with open(__file__.rsplit("/", 2)[0] + "/paths.json") as file:
    sys.path.extend(path for path in json.load(file) if path not in sys.path)

from holdfast.pearl.triton_model import model_class

TritonPythonModel = model_class(pb_utils, numpy)
'''


class PearlServing(Struct, frozen=True, kw_only=True):
    """The embedded engine inside Triton. `paths` is where its Python finds holdfast and torch."""

    plan: PearlPlan
    paths: tuple[str, ...]
    instances: int = 1  # each has the weights and a batch of its own
    gpus: tuple[int, ...] = ()
    unary_batch_max: int = 0  # requests that one batch of the unary variant gathers; 0: no such variant
    queue_delay_us: int = QUEUE_DELAY_US


def pearl_repository(serving: PearlServing) -> Files:
    """The decoupled model, and the unary one where it is asked for."""
    files = [*_pearl_model(STREAM, serving, 0)]
    batch_max = serving.unary_batch_max
    if batch_max:
        roomy = structs.replace(serving.plan, queue_max=max(serving.plan.queue_max, batch_max))  # a batch comes at once
        files += _pearl_model(UNARY, structs.replace(serving, plan=roomy), batch_max)
    return tuple(files)


def vllm_repository(name: str, engine_args: dict[str, object], instances: int = 1) -> Files:
    """For Triton's vLLM backend: `model.json` holds vLLM's engine arguments. Text in, text out: answers go on as a fair sample.

    The vLLM backend fills in inputs, outputs and the decoupled policy by itself.
    """
    config = "\n".join(
        (
            f"name: {_quoted(name)}",
            'backend: "vllm"',
            "model_transaction_policy { decoupled: true }",
            f"instance_group [ {{ count: {instances} kind: KIND_MODEL }} ]",
            _parameter("REPORT_CUSTOM_METRICS", "true"),
            _parameter("ENABLE_VLLM_HEALTH_CHECK", "true"),
            "",
        )
    )
    args = {**engine_args, "trust_remote_code": False, "disable_log_stats": False}
    return (f"{name}/config.pbtxt", config), (f"{name}/1/model.json", json.dumps(args, indent=1) + "\n")


class TensorRtServing(Struct, frozen=True, kw_only=True):
    """An engine that TensorRT-LLM has built, in `engine_dir`."""

    engine_dir: str
    batch_max: int = 64
    name: str = "tensorrt_llm"
    kv_cache_gpu_share: float = 0.9


def tensorrt_repository(serving: TensorRtServing) -> Files:
    """For the TensorRT-LLM backend, with the inputs that the adapter sends and no others; its config.pbtxt has 60 more."""
    scalars = (
        ("input_lengths", "INT32", False),
        ("request_output_len", "INT32", False),
        ("end_id", "INT32", True),
        ("pad_id", "INT32", True),
        ("temperature", "FP32", True),
        ("runtime_top_k", "INT32", True),
        ("runtime_top_p", "FP32", True),
        ("presence_penalty", "FP32", True),
        ("frequency_penalty", "FP32", True),
        ("seed", "UINT64", True),
        ("streaming", "BOOL", True),
        ("stop", "BOOL", True),
        ("exclude_input_in_output", "BOOL", True),
    )
    ragged = "optional: true allow_ragged_batch: true"
    inputs = [
        f'  {{ name: "input_ids" data_type: TYPE_INT32 dims: [ -1 ] {ragged} }}',
        *(
            f'  {{ name: "{name}" data_type: TYPE_{kind} dims: [ 1 ] reshape: {{ shape: [ ] }}'
            + (" optional: true }" if optional else " }")
            for name, kind, optional in scalars
        ),
        f'  {{ name: "stop_words_list" data_type: TYPE_INT32 dims: [ 2, -1 ] {ragged} }}',
    ]
    outputs = [
        '  { name: "output_ids" data_type: TYPE_INT32 dims: [ -1, -1 ] }',
        '  { name: "sequence_length" data_type: TYPE_INT32 dims: [ -1 ] }',
    ]
    lines = (
        f"name: {_quoted(serving.name)}",
        'backend: "tensorrtllm"',
        f"max_batch_size: {serving.batch_max}",
        "model_transaction_policy { decoupled: true }",
        f"dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_DELAY_US} }}",
        "input [\n" + ",\n".join(inputs) + "\n]",
        "output [\n" + ",\n".join(outputs) + "\n]",
        "instance_group [ { count: 1 kind: KIND_CPU } ]",
        _parameter("gpt_model_type", "inflight_fused_batching"),
        _parameter("gpt_model_path", serving.engine_dir),
        _parameter("exclude_input_in_output", "true"),
        _parameter("kv_cache_free_gpu_mem_fraction", f"{serving.kv_cache_gpu_share:g}"),
        _parameter("enable_kv_cache_reuse", "true"),
        _parameter("enable_chunked_context", "true"),
        _parameter("cancellation_check_period_ms", "20"),
        "",
    )
    return (f"{serving.name}/config.pbtxt", "\n".join(lines)), (f"{serving.name}/1/.keep", "")


def _pearl_model(name: str, serving: PearlServing, batch_max: int) -> Files:
    ragged = " allow_ragged_batch: true" if batch_max else ""
    inputs = [f'  {{ name: "{n}" data_type: {_type(t)} dims: [ {d} ] optional: true{ragged} }}' for n, t, d in INPUTS]
    outputs = [f'  {{ name: "{n}" data_type: {_type(t)} dims: [ {d} ] }}' for n, t, d in OUTPUTS]
    lines = [
        f"name: {_quoted(name)}",
        'backend: "python"',
        f"max_batch_size: {batch_max}",
        f"model_transaction_policy {{ decoupled: {'false' if batch_max else 'true'} }}",
        "input [\n" + ",\n".join(inputs) + "\n]",
        "output [\n" + ",\n".join(outputs) + "\n]",
        _instances(serving),
        _warmup(),
        _parameter("plan", msgspec.json.encode(serving.plan).decode()),
    ]
    if batch_max:
        lines.insert(4, f"dynamic_batching {{ max_queue_delay_microseconds: {serving.queue_delay_us} }}")
    return (
        (f"{name}/config.pbtxt", "\n".join(lines) + "\n"),
        (f"{name}/paths.json", json.dumps(serving.paths) + "\n"),
        (f"{name}/1/model.py", _MODEL_PY),
    )


def _instances(serving: PearlServing) -> str:
    if not serving.gpus:
        return f"instance_group [ {{ count: {serving.instances} kind: KIND_CPU }} ]"
    gpus = ", ".join(map(str, serving.gpus))
    return f"instance_group [ {{ count: {serving.instances} kind: KIND_GPU gpus: [ {gpus} ] }} ]"


def _warmup() -> str:
    """One short answer before the model counts as ready: the first forward pass is the slow one.

    `batch_size` is 1 for the decoupled model too: samples of size 0 are passed over.
    """
    zeros = '{ key: "input_ids" value { data_type: TYPE_INT32 dims: [ 8 ] zero_data: true } }'
    return f'model_warmup [ {{ name: "first" batch_size: 1 count: 1 inputs {zeros} }} ]'


def _parameter(key: str, value: str) -> str:
    return f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}"


def _type(datatype: str) -> str:
    return _TYPES.get(datatype, f"TYPE_{datatype}")


def _quoted(text: str) -> str:
    """A string of protobuf's text format: JSON's escapes are among its own."""
    return json.dumps(text, ensure_ascii=False)
