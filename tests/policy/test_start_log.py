"""Logs of starts, read. The files in start_logs are real: vLLM 0.32 on CPU, Triton 2.51, llama.cpp; paths were shortened."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.engine import EngineKind, Progress, StartFailure
from holdfast.domain.replica import StartFault
from holdfast.policy.start_failures import FAULTS
from holdfast.policy.start_log import read_line, reader

LOGS = Path(__file__).parent / "start_logs"
KINDS = {"vllm": EngineKind.VLLM, "triton": EngineKind.TRITON, "llama": EngineKind.LLAMACPP}
ENDS = {
    "llama-cut": (
        StartFault.MODEL,
        "a file of the weights is cut or damaged: error loading model: tensor 'output.weight'",
    ),
    "llama-junk": (StartFault.MODEL, "a file of the weights is cut or damaged: invalid magic characters: 'junk'"),
    "llama-mem": (StartFault.MEMORY, "out of main memory: insufficient memory (attempted to allocate 1152.00 MB)"),
    "llama-missing": (StartFault.MODEL, "a file of the model is missing: failed to open GGUF file 'missing.gguf'"),
    "llama-port": (StartFault.ADDRESS, "its port was taken meanwhile: start: couldn't bind HTTP server socket"),
    "triton-arg": (StartFault.SETTINGS, "it does not know a word of its command line: "),
    "triton-import": (StartFault.SETTINGS, "its environment lacks a package: failed to load 'm' version 1"),
    "triton-memory": (StartFault.MEMORY, "out of main memory: ERROR: Failed to create instance: MemoryError"),
    "triton-model": (
        StartFault.MODEL,
        "a file of the model is missing: ERROR: Failed to create instance: FileNotFoundError",
    ),
    "triton-port": (StartFault.ADDRESS, "its port was taken meanwhile: UNKNOWN:No address added"),
    "vllm-arch": (StartFault.MODEL, "this build does not know the model: Error parsing config for /models/arch"),
    "vllm-arg": (
        StartFault.SETTINGS,
        "entry.py: error: unrecognized arguments: --no-such-word. See `holdfast engine check",
    ),
    "vllm-badvalue": (StartFault.SETTINGS, "argument --kv-cache-dtype: invalid choice: 'fp7'"),
    "vllm-cut": (
        StartFault.MODEL,
        "a file of the weights is cut or damaged: safetensors._safetensors_rust.SafetensorError",
    ),
    "vllm-gate": (StartFault.MODEL, 'Write "topk_method": "noaux_tc" into it'),
    "vllm-mem": (StartFault.MEMORY, "out of main memory: ValueError: Available memory on node 0 (8.27/13.09 GiB)"),
    "vllm-notok": (
        StartFault.MODEL,
        "the tokenizer can't be read: ValueError: Couldn't instantiate the backend tokenizer",
    ),
    "vllm-noweights": (StartFault.MODEL, "a file of the model is missing: RuntimeError: Cannot find any model weights"),
    "vllm-port": (StartFault.ADDRESS, "its port was taken meanwhile: OSError: [Errno 98] Address already in use"),
}
FROM_SOURCES = [
    ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity", StartFault.MEMORY),
    ("(EngineCore pid=7) ERROR 11-29 19:06:03 [core.py:1510] ValueError: No available memory for the cache blocks. ",
     StartFault.MEMORY),
    ("ValueError: Free memory on device cuda:0 (3.1/79.6 GiB) on startup is less than desired GPU memory", StartFault.MEMORY),
    ("ValueError: To serve at least one request with the model's max seq len (163840), 9.0 GiB KV cache is needed, which is "
     "larger than the available KV cache memory (1.2 GiB).", StartFault.MEMORY),
    ("RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. Current value: 0.8", StartFault.MEMORY),
    ("RuntimeError: CUDA error: invalid device ordinal", StartFault.DEVICE),
    ("RuntimeError: No CUDA GPUs are available", StartFault.DEVICE),
    ("RuntimeError: The NVIDIA driver on your system is too old (found version 11040).", StartFault.DEVICE),
    ("RuntimeError: CUDA error: no kernel image is available for execution on the device", StartFault.DEVICE),
    ("torch.distributed.DistBackendError: NCCL error in: x.cpp:77, ncclUnhandledCudaError", StartFault.DEVICE),
    ("ValueError: Model architectures ['DeepseekV9ForCausalLM'] are not supported for now. Supported", StartFault.MODEL),
    ("OSError: [Errno 28] No space left on device", StartFault.SETTINGS),
    ("launch_server.py: error: argument --tp-size: invalid int value: 'x'", StartFault.SETTINGS),
]  # fmt: skip


def told(name: str) -> list[Progress | StartFailure]:
    lines = (LOGS / f"{name}.txt").read_text().splitlines()
    read = reader(KINDS[name.partition("-")[0]])
    return [found for line in lines if (found := read(line)) is not None]


@pytest.mark.parametrize("name", sorted(ENDS))
def test_a_real_failure_is_named_by_its_first_cause(name):
    failure = next(one for one in told(name) if isinstance(one, StartFailure))
    code, words = ENDS[name]
    assert failure.code is code
    assert words in failure.why
    assert "\n" not in failure.why


@pytest.mark.parametrize("name", ["vllm-ok", "triton-ok", "llama-ok"])
def test_a_real_start_comes_from_stage_to_stage_and_never_fails(name):
    found = told(name)
    assert all(isinstance(one, Progress) for one in found)
    assert found[-1] == Progress("listening", 1.0)
    shares = [one.share for one in found]
    assert shares == sorted(shares)
    assert len(found) >= 3


def test_every_real_log_is_in_the_table():
    assert {path.stem for path in LOGS.iterdir()} == {*ENDS, "vllm-ok", "triton-ok", "llama-ok"}


def test_shards_and_graphs_are_counted():
    line = "Loading safetensors checkpoint shards:   7% Completed | 12/163 [00:08<01:40,  1.50it/s]"
    assert read_line(EngineKind.VLLM, line) == Progress("weights loaded 12/163 shards", 0.098)
    line = "(Worker_TP0 pid=9) Capturing CUDA graphs (decode, FULL):  45%|####5     | 30/67 [00:09<00:11]"
    assert read_line(EngineKind.VLLM, line) == Progress("capturing graphs 30/67", 0.84)
    line = "Capturing batches (bs=160 avail_mem=20.1 GB):  22%|##       | 5/23 [00:01<00:04]"
    assert read_line(EngineKind.SGLANG, line) == Progress("capturing graphs 5/23", 0.793)
    line = "[2026-11-29 19:00:01 TP0] Load weight begin. avail mem=78.50 GB"
    assert read_line(EngineKind.SGLANG, line) == Progress("beginning to load weights", 0.05)
    assert read_line(EngineKind.SGLANG, "The server is fired up and ready to roll!") == Progress("listening", 1.0)


@pytest.mark.parametrize(("line", "code"), FROM_SOURCES)
def test_what_only_a_gpu_can_say_is_known_from_the_sources(line, code):
    for kind in (EngineKind.VLLM, EngineKind.SGLANG):
        found = read_line(kind, line)
        assert isinstance(found, StartFailure)
        assert found.code is code


@pytest.mark.parametrize(
    "line",
    [
        "(Worker pid=1) WARNING 11-29 19:05:09 [x.py:1] this may run into CUDA out of memory",
        "(APIServer pid=1) INFO 11-29 19:05:09 [x.py:1] trust_remote_code=False, port 8000",
        'W1129 18:54:26.413713 1 pinned_memory_manager.cc:273] "CUDA driver version is insufficient for CUDA runtime version"',
        "0.00.002.347 W srv init: security: no API key is set",
    ],
)
def test_a_warning_is_no_failure(line):
    for kind in EngineKind:
        assert read_line(kind, line) is None


@given(st.binary(max_size=300), st.sampled_from(list(EngineKind)))
def test_any_bytes_are_read(data, kind):
    found = read_line(kind, data.decode("utf-8", "replace"))
    assert found is None or isinstance(found, Progress | StartFailure)


@given(
    st.sampled_from(sorted(ENDS)),
    st.integers(0, 200),
    st.integers(0, 400),
    st.text(max_size=20),
    st.sampled_from(list(EngineKind)),
)
def test_a_torn_real_line_is_read(name, which, at, junk, kind):
    lines = (LOGS / f"{name}.txt").read_text().splitlines()
    line = lines[which % len(lines)]
    found = read_line(kind, line[:at] + junk + line[at:])
    if isinstance(found, Progress):
        assert -1 <= found.share <= 1


def test_the_page_of_engines_tells_each_failure():
    page = (LOGS.parents[2] / "docs" / "engines.md").read_text()
    for fault in FAULTS:
        assert f"| {fault.what} | {fault.code.name.lower()} ({int(fault.code)}) | {fault.fix} |" in page
