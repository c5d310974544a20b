"""What a starting engine says in its log, line by line: how far it has come, or why it will not come up.

Texts were read in the sources of vLLM 0.32 and 0.33 and SGLang 0.5.23, and taken from real starts and failures of vLLM 0.32 on
CPU, of Triton 2.51 and of llama.cpp (tests/policy/start_logs); those that need a GPU to happen are from the sources, PyTorch and
CUDA. A line that nobody knows means nothing. Warnings never mean failure: engines warn of memory that may run out.
"""

import re
from collections.abc import Callable
from functools import partial

from msgspec import Struct

from holdfast.domain.engine import EngineKind, Progress, StartFailure
from holdfast.policy.start_failures import FAULTS

QUOTED_MAX = 240
LINE_MAX = 4096
# Where in a start the stages lie; weights take most of it for all models that matter.
WEIGHTS_FROM, WEIGHTS_TO, GRAPHS_FROM, GRAPHS_TO = 0.05, 0.7, 0.75, 0.95
_HEAD = re.compile(
    r"^(?:E\d{4} [\d:. ]{10,40}\S{1,60}\]\s*|[\d.]{6,20} E \S{1,60}:? *)?"  # glog: Triton; llama.cpp
    r"(?:\([^)]{1,60}\)\s*)?(?:\[[^\]]{1,60}\]\s*)?(?:(?:ERROR|CRITICAL)[: ]\s*)?(?:[\d:. -]{5,20}\[[^\]]{1,60}\]\s*)?"
)
_MILD = re.compile(
    r"^(?:\([^)]{1,60}\)\s*)?(?:\[[^\]]{1,60}\]\s*)?(?:INFO|WARNING|DEBUG|Warning)\b|^[WI]\d{4} |^[\d.]{6,} [WID] "
)


class _Stage(Struct, frozen=True):
    """`said` may have groups, which `told` names; the last two are counted where `span` is given."""

    said: re.Pattern[str]
    told: str
    share: float = -1.0
    span: tuple[float, float] | None = None


def _stage(said: str, told: str, share: float = -1.0, span: tuple[float, float] | None = None) -> _Stage:
    return _Stage(re.compile(said), told, share, span)


_SHARDS = _stage(
    r"checkpoint shards.*?(\d{1,6})/(\d{1,6})", "weights loaded {0}/{1} shards", span=(WEIGHTS_FROM, WEIGHTS_TO)
)
STAGES: dict[EngineKind, tuple[_Stage, ...]] = {
    EngineKind.VLLM: (
        _SHARDS,
        _stage(r"Resolved architecture: (\w{1,80})", "reading the model's settings ({0})", 0.01),
        _stage(r"Starting to load model|Loading model from scratch", "beginning to load weights", WEIGHTS_FROM),
        _stage(r"Loading weights took ([\d.]{1,12}) seconds", "weights loaded in {0} s", WEIGHTS_TO),
        _stage(r"DeepGEMM warmup.*?(\d{1,6})/(\d{1,6})", "preparing kernels {0}/{1}", span=(WEIGHTS_TO, GRAPHS_FROM)),
        _stage(r"torch\.compile took|Compiling a graph", "compiling", 0.72),
        _stage(r"KV cache size: ([\d,]{1,20}) tokens", "cache of {0} tokens made", GRAPHS_FROM),
        _stage(
            r"Capturing .*?(?:CUDA|cuda) ?graphs?.*?(\d{1,6})/(\d{1,6})",
            "capturing graphs {0}/{1}",
            span=(GRAPHS_FROM, GRAPHS_TO),
        ),
        _stage(r"init engine \(.*?took ([\d.]{1,12}) s", "engine made in {0} s", 0.96),
        _stage(r"Starting vLLM (?:API )?server", "opening its door", 0.98),
        _stage(r"Application startup complete", "listening", 1.0),
    ),
    EngineKind.SGLANG: (
        _SHARDS,
        _stage(r"Init torch distributed begin", "gathering its GPUs", 0.02),
        _stage(r"Load weight begin", "beginning to load weights", WEIGHTS_FROM),
        _stage(r"Load weight end", "weights loaded", WEIGHTS_TO),
        _stage(r"DeepGEMM warmup.*?(\d{1,6})/(\d{1,6})", "preparing kernels {0}/{1}", span=(WEIGHTS_TO, GRAPHS_FROM)),
        _stage(r"max_total_num_tokens=(\d{1,12})", "cache of {0} tokens made", 0.96),
        _stage(
            r"Capturing batches.*?\|\s*(\d{1,6})/(\d{1,6})", "capturing graphs {0}/{1}", span=(GRAPHS_FROM, GRAPHS_TO)
        ),
        _stage(r"Capture .{1,60} begin", "capturing graphs", GRAPHS_FROM),
        _stage(r"Application startup complete", "warming up", 0.98),
        _stage(r"The server is fired up and ready to roll", "listening", 1.0),
    ),
    EngineKind.TRITON: (
        _stage(r'"loading: ([^"]{1,100}):\d+"', "loading {0}", 0.1),
        _stage(r"\"successfully loaded '([^']{1,100})'", "{0} loaded", 0.8),
        _stage(r"Started GRPCInferenceService at", "listening", 1.0),
    ),
    EngineKind.LLAMACPP: (
        _stage(r"load_model: loading model", "beginning to load weights", WEIGHTS_FROM),
        _stage(r"load_model: initializing.{0,10} n_slots = (\d{1,6})", "weights loaded, making {0} slots", WEIGHTS_TO),
        _stage(r": model loaded", "model loaded", 0.95),
        _stage(r": (?:server is )?listening on http", "listening", 1.0),
    ),
}


def reader(kind: EngineKind) -> Callable[[str], Progress | StartFailure | None]:
    """What reads the lines of one kind of engine."""
    return partial(read_line, kind)


def read_line(kind: EngineKind, line: str) -> Progress | StartFailure | None:
    """What one line means for the start; None: nothing. Total: any text is read."""
    line = line[:LINE_MAX]
    for stage in STAGES.get(kind, ()):
        found = stage.said.search(line)
        if found is not None:
            return _progress(stage, found.groups())
    if kind is EngineKind.TRITON and not line.startswith(("E", "error")) and "tritonserver: " not in line:
        return None
    mild = _MILD.match(line) is not None
    for fault in FAULTS:
        if (not mild or fault.even_mild) and fault.said.search(line):
            return StartFailure(fault.code, f"{fault.what}: {_quoted(line)}. {fault.fix}")
    return None


def _progress(stage: _Stage, groups: tuple[str, ...]) -> Progress:
    share = stage.share
    if stage.span is not None:
        done, all_ = int(groups[-2]), int(groups[-1])
        low, high = stage.span
        share = low + (high - low) * min(1.0, done / all_) if all_ else low
    return Progress(stage.told.format(*groups), round(share, 3))


def _quoted(line: str) -> str:
    """The line without what stands before its message, and not too long."""
    text = _HEAD.sub("", line, count=1).partition("\\n")[0].strip().strip('"').rstrip(".")
    return text if len(text) <= QUOTED_MAX else text[:QUOTED_MAX] + " ..."
