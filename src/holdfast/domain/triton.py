"""What is agreed between Holdfast's model inside Triton (pearl/triton_model.py) and those who ask it: tensors and words.

An answer in flight is asked for with its prompt and what was delivered in `input_ids`; `delivered_len` says how many of these,
counted from the end, are answer already. So noise, penalties and bounds are those of the whole answer, and it goes on exactly.
"""

from msgspec import Struct

from holdfast.domain.release import Release
from holdfast.domain.replica import Load

OUTPUT_LEN = 16
STREAM = "holdfast"  # the decoupled model: one response for each step that made something
UNARY = "holdfast_unary"  # one response for an answer; requests are gathered for a moment
ASK_RELEASE, ASK_LOAD = "release", "load"
REFUSED, BAD, FAILED = "refused: ", "bad request: ", "failed: "  # how an error of the model's own begins

# name, type, dims; all are optional, since a question needs none but `ask`
INPUTS = (
    ("input_ids", "INT32", -1),
    ("delivered_len", "INT32", 1),
    ("request_output_len", "INT32", 1),  # new ones; 16 where it is not sent
    ("temperature", "FP64", 1),
    ("top_p", "FP64", 1),
    ("top_k", "INT32", 1),
    ("min_p", "FP64", 1),
    ("presence_penalty", "FP64", 1),
    ("frequency_penalty", "FP64", 1),
    ("seed", "UINT64", 1),
    ("stop_ids", "INT32", -1),
    ("ignore_eos", "BOOL", 1),
    ("logprobs", "INT32", 1),
    ("logit_bias", "BYTES", 1),  # JSON: [[id, bias], ...]
    ("grammar", "BYTES", 1),
    ("ask", "BYTES", 1),  # `release` or `load`: answered at once, in `told`, without a step of the model
)
OUTPUTS = (
    ("output_ids", "INT32", -1),
    ("finish", "BYTES", 1),  # with the last response: stop or length
    ("cached_tokens", "INT32", 1),  # of the prompt, told once
    ("logprobs", "BYTES", 1),  # JSON: [[id, logprob, [[id, logprob], ...]], ...], one for each id
    ("told", "BYTES", 1),  # JSON
)


class PearlPlan(Struct, frozen=True, kw_only=True):
    """How the model opens its core: the embedded engine's options, in the model's configuration as JSON."""

    model: str  # the folder
    serve_as: str = ""
    slots: int = 32
    context_tokens_max: int = 2048
    prefill_chunk_tokens: int = 256
    queue_max: int = 128
    dtype: str = "fp32"
    threads: int = 1
    device: str = "cpu"
    version: str = "0.0.0"


class Told(Struct, frozen=True, kw_only=True):
    """What the model tells of itself."""

    release: Release
    load: Load
    vocab_size: int
    context_tokens_max: int
    slots: int
