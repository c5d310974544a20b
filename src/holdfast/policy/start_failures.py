"""Why engines don't start, by what they say: the table that start_log.py goes by.

What is told names the fault, quotes the engine, and says what to do about it. Where a text comes from is said there.
"""

import re

from msgspec import Struct

from holdfast.domain.replica import StartFault


class Fault(Struct, frozen=True):
    """`said` is looked for in a line; `even_mild`: in lines too that don't look like errors."""

    said: re.Pattern[str]
    code: StartFault
    what: str
    fix: str
    even_mild: bool = False


def _fault(said: tuple[str, ...], code: StartFault, what: str, fix: str, even_mild: bool = False) -> Fault:
    return Fault(re.compile("|".join(said)), code, what, fix, even_mild)


_SLOTS = "Fewer [replica] slots, a smaller context_tokens_max, or more [engine] gpus"
_FOLDER = "Compare the folder at [model] path with its release, and load it anew"
_DRIVER = "Update the driver, or take a build of the engine that fits it"
GPU_FAULTS = (
    _fault(
        (
            "OutOfMemoryError",
            "CUDA out of memory",
            "HIP out of memory",
            "CUDA error: out of memory",
            "ErrorOutOfMemory",
        ),
        StartFault.MEMORY,
        "out of GPU memory",
        _SLOTS,
    ),
    _fault(
        ("Free memory on device .{1,300}less than",),
        StartFault.MEMORY,
        "the GPU is not free",
        "End what else runs on it, or lower the share with [engine] args",
    ),
    _fault(
        (
            "No available memory for the cache",
            r"Not enough memory\. Please try",
            "larger than the available KV cache",
        ),
        StartFault.MEMORY,
        "no room for the cache beside the weights",
        _SLOTS,
    ),
    _fault(
        ("memory capacity is unbalanced",),
        StartFault.MEMORY,
        "the GPUs are not equally free",
        "End what else runs on them",
    ),
    _fault(
        (
            "invalid device ordinal",
            "No CUDA GPUs are available",
            "no CUDA-capable device",
            "no NVIDIA driver on your system",
            "Failed to infer device type",
            "No accelerator",
        ),
        StartFault.DEVICE,
        "no such GPU",
        "Name those that nvidia-smi shows in [replica] devices",
    ),
    _fault(
        (
            "driver version is insufficient",
            "NVIDIA driver on your system is too old",
            "driver/library version mismatch",
            "forward compatibility was attempted",
        ),
        StartFault.DEVICE,
        "the driver does not fit the engine",
        _DRIVER,
    ),
    _fault(
        (
            "no kernel image is available",
            "not compiled with CUDA enabled",
            r"libcudart\S{0,20}: cannot open",
            r"libcuda\.so\S{0,20}: cannot open",
            r"SM \d+ is not supported",
        ),
        StartFault.DEVICE,
        "this build of the engine has no code for this GPU",
        "Take one that has",
    ),
    _fault(
        (
            "ncclUnhandled",
            "ncclSystemError",
            "ncclInternalError",
            "ncclRemoteError",
            "NCCL error",
        ),
        StartFault.DEVICE,
        "the GPUs can't talk to each other",
        'Set [engine] env = ["NCCL_DEBUG=INFO"] and look into the log',
    ),
    _fault(
        (
            "uncorrectable ECC error",
            "GPU is lost",
            "fallen off the bus",
            "CUDA error: unspecified launch failure",
        ),
        StartFault.DEVICE,
        "a GPU is broken",
        "Take it out of [replica] devices",
    ),
)
MODEL_FAULTS = (
    _fault(
        (r"KeyError: '\S{0,100}e_score_correction_bias",),
        StartFault.MODEL,
        "config.json does not say how the gate chooses experts",
        'Write "topk_method": "noaux_tc" into it',
    ),
    _fault(
        (
            "incomplete metadata, file not fully covered",
            "Error while deserializing header",
            "InvalidHeader",
            "MetadataIncompleteBuffer",
            "PytorchStreamReader failed",
            "not within the file bounds",
            "invalid magic characters",
        ),
        StartFault.MODEL,
        "a file of the weights is cut or damaged",
        _FOLDER,
    ),
    _fault(
        (
            "Cannot find any model weights",
            r"No such file or directory.{0,200}\.(?:safetensors|json|gguf|bin)",
            "failed to open GGUF file",
            r"\.(?:safetensors|gguf)\S{0,5} is missing",
        ),
        StartFault.MODEL,
        "a file of the model is missing",
        _FOLDER,
    ),
    _fault(
        (
            "does not recognize this architecture",
            "Model architectures .{1,300}(?:not supported|failed to be inspected)",
            "unknown model architecture",
        ),
        StartFault.MODEL,
        "this build does not know the model",
        "Take a newer build of the engine, or another engine",
    ),
    _fault(
        (
            "requires you to execute the configuration file",
            "contains custom code which must be executed",
            "`trust_remote_code=True` to",
        ),
        StartFault.MODEL,
        "the model wants its own code to run, which Holdfast never lets it",
        "Take a build that has the architecture built in",
    ),
    _fault(
        (
            "Unrecognized configuration class",
            "is not the path to a directory containing",
            "Unable to load (?:vocabulary|tokenizer)",
            "[Cc]ouldn'?t instantiate the backend tokenizer",
            "error loading model vocabulary",
        ),
        StartFault.MODEL,
        "the tokenizer can't be read",
        _FOLDER,
    ),
    _fault(
        (
            "size mismatch for",
            "Attempted to load weight .{1,200}into parameter",
            "There is no module or parameter named",
            r"KeyError: '[\w.]{0,200}(?:weight|bias|scale)",
        ),
        StartFault.MODEL,
        "weights and config.json do not belong together",
        _FOLDER,
    ),
    _fault(
        (
            "missing tensor",
            "wrong number of tensors",
            "error loading model",
        ),
        StartFault.MODEL,
        "the model can't be loaded",
        _FOLDER,
    ),
    _fault(
        ("User-specified max_model_len .{1,200}is greater than",),
        StartFault.SETTINGS,
        "the context is longer than the model's own",
        "Lower [replica] context_tokens_max",
    ),
)
OTHER_FAULTS = (
    _fault(
        (
            "Available memory on node .{1,200}less than requested",
            r"insufficient memory \(attempted",
            "failed to allocate buffer",
            "Cannot allocate memory",
            r"\bMemoryError\b",
            "std::bad_alloc",
            "DefaultCPUAllocator: can't allocate",
        ),
        StartFault.MEMORY,
        "out of main memory",
        _SLOTS,
    ),
    _fault(
        (
            "[Aa]ddress already in use",
            "address in use",
            "Socket '[^']{1,100}' already in use",
            "couldn't bind HTTP server socket",
            r"Port \d+ is already in use",
        ),
        StartFault.ADDRESS,
        "its port was taken meanwhile",
        "The next start takes another",
    ),
    _fault(
        (
            r"(?:\.py|__main__|launch_server|llama-server): error: .{1,300}",
            "unrecognized option",
            "doesn't allow an argument",
            "^error: invalid argument: ",
            "unknown argument: ",
            "^error: unknown ",
        ),
        StartFault.SETTINGS,
        "it does not know a word of its command line",
        "See `holdfast engine check --parse`, and [engine] args",
        True,
    ),
    _fault(
        ("No space left on device",),
        StartFault.SETTINGS,
        "a disk is full",
        "Make room; engines keep compiled kernels in the home folder",
    ),
    _fault(
        (r"No module named '?([\w.]{1,100})",),
        StartFault.SETTINGS,
        "its environment lacks a package",
        "Install the engine anew, or name another [engine] program",
    ),
)
FAULTS = (*GPU_FAULTS, *MODEL_FAULTS, *OTHER_FAULTS)
