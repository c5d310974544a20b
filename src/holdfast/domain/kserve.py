"""The words of KServe's v2 inference protocol over gRPC, with Triton's extensions: as far as Holdfast speaks them.

Names and numbers are those of the public protocol (github.com/kserve/open-inference-protocol, Triton's docs/protocol:
statistics, model repository, parameters). Tensors travel as raw little-endian bytes; text as a 4-byte length and its bytes.
"""

import struct
import sys
from array import array
from collections.abc import Sequence

from msgspec import Struct, field

from holdfast.domain.protobuf import Codec, Field, Garbled, Kind

SERVICE = "inference.GRPCInferenceService"
FINAL = "triton_final_response"
TELL_FINAL = "triton_enable_empty_final_response"
_LENGTH = struct.Struct("<I")
SIZES = {
    "INT32": ("i", 4),
    "INT64": ("q", 8),
    "UINT32": ("I", 4),
    "UINT64": ("Q", 8),
    "FP32": ("f", 4),
    "FP64": ("d", 8),
}
SIZES["BOOL"] = ("B", 1)


class Parameter(Struct):
    """One of these is set."""

    bool_param: bool = False
    int64_param: int = 0
    string_param: str = ""
    double_param: float = 0.0


class Tensor(Struct):
    """A tensor's name, type and shape; its bytes stand beside it in the message."""

    name: str = ""
    datatype: str = ""
    shape: list[int] = []


class Wanted(Struct):
    name: str = ""


class Nothing(Struct):
    """A message without fields."""


class InferRequest(Struct):
    model_name: str = ""
    model_version: str = ""
    id: str = ""
    parameters: dict[str, Parameter] = {}
    inputs: list[Tensor] = []
    outputs: list[Wanted] = []
    raw: list[bytes] = []


class InferResponse(Struct):
    model_name: str = ""
    model_version: str = ""
    id: str = ""
    parameters: dict[str, Parameter] = {}
    outputs: list[Tensor] = []
    raw: list[bytes] = []

    @property
    def final(self) -> bool:
        """Whether nothing follows for this request."""
        told = self.parameters.get(FINAL)
        return told is not None and told.bool_param


class StreamItem(Struct):
    """What comes down a stream: an error without a code, or a response."""

    error_message: str = ""
    infer_response: InferResponse | None = None


class Named(Struct):
    """ModelReady, ModelMetadata and ModelStatistics are asked with it."""

    name: str = ""
    version: str = ""


class Live(Struct):
    """Answer of ServerLive, ServerReady and ModelReady."""

    yes: bool = False


class ServerMetadata(Struct):
    name: str = ""
    version: str = ""
    extensions: list[str] = []


class ModelMetadata(Struct):
    name: str = ""
    versions: list[str] = []
    platform: str = ""
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []


class Lasted(Struct):
    """How often something was done, and how long it took in all."""

    count: int = 0
    ns: int = 0


class InferStats(Struct):
    success: Lasted = field(default_factory=Lasted)
    fail: Lasted = field(default_factory=Lasted)
    queue: Lasted = field(default_factory=Lasted)


class BatchStats(Struct):
    """How often batches of this size were computed."""

    batch_size: int = 0
    compute_infer: Lasted = field(default_factory=Lasted)


class ResponseStats(Struct):
    """Of decoupled models: responses with one index within their request."""

    compute_infer: Lasted = field(default_factory=Lasted)
    success: Lasted = field(default_factory=Lasted)
    empty_response: Lasted = field(default_factory=Lasted)


class ModelStats(Struct):
    name: str = ""
    version: str = ""
    last_inference: int = 0
    inference_count: int = 0
    execution_count: int = 0
    inference_stats: InferStats = field(default_factory=InferStats)
    batch_stats: list[BatchStats] = []
    response_stats: dict[str, ResponseStats] = {}

    @property
    def progress(self) -> int:
        """A number that grows whenever the model answers anything, each response of a stream included."""
        streamed = sum(one.success.count + one.empty_response.count for one in self.response_stats.values())
        return self.inference_count + self.execution_count + self.inference_stats.success.count + streamed


class Statistics(Struct):
    model_stats: list[ModelStats] = []


class InRepository(Struct):
    """RepositoryModelLoad and RepositoryModelUnload are asked with it."""

    repository_name: str = ""
    model_name: str = ""
    parameters: dict[str, Parameter] = {}


class InIndex(Struct):
    """A model of the repository. `state`: READY, UNAVAILABLE, LOADING, UNLOADING, or empty: never loaded."""

    name: str = ""
    version: str = ""
    state: str = ""
    reason: str = ""


class Index(Struct):
    models: list[InIndex] = []


K = Kind
_ASKED = (Field(1, "model_name", K.TEXT), Field(2, "model_version", K.TEXT), Field(3, "id", K.TEXT))
_TENSOR = (Field(1, "name", K.TEXT), Field(2, "datatype", K.TEXT), Field(3, "shape", K.INTS))
_SUCCESS, _LASTED = Field(1, "success", K.MESSAGE, Lasted), (Field(1, "count", K.UINT), Field(2, "ns", K.UINT))
CODEC = Codec(
    {
        Parameter: (
            Field(1, "bool_param", K.BOOL),
            Field(2, "int64_param", K.INT),
            Field(3, "string_param", K.TEXT),
            Field(4, "double_param", K.DOUBLE),
        ),
        Tensor: _TENSOR,
        Wanted: (Field(1, "name", K.TEXT),),
        Nothing: (),
        InferRequest: (
            *_ASKED,
            Field(4, "parameters", K.MAP, Parameter),
            Field(5, "inputs", K.MESSAGES, Tensor),
            Field(6, "outputs", K.MESSAGES, Wanted),
            Field(7, "raw", K.BLOBS),
        ),
        InferResponse: (
            *_ASKED,
            Field(4, "parameters", K.MAP, Parameter),
            Field(5, "outputs", K.MESSAGES, Tensor),
            Field(6, "raw", K.BLOBS),
        ),
        StreamItem: (Field(1, "error_message", K.TEXT), Field(2, "infer_response", K.MESSAGE, InferResponse)),
        Named: (Field(1, "name", K.TEXT), Field(2, "version", K.TEXT)),
        Live: (Field(1, "yes", K.BOOL),),
        ServerMetadata: (Field(1, "name", K.TEXT), Field(2, "version", K.TEXT), Field(3, "extensions", K.TEXTS)),
        ModelMetadata: (
            Field(1, "name", K.TEXT),
            Field(2, "versions", K.TEXTS),
            Field(3, "platform", K.TEXT),
            Field(4, "inputs", K.MESSAGES, Tensor),
            Field(5, "outputs", K.MESSAGES, Tensor),
        ),
        Lasted: _LASTED,
        InferStats: (_SUCCESS, Field(2, "fail", K.MESSAGE, Lasted), Field(3, "queue", K.MESSAGE, Lasted)),
        BatchStats: (Field(1, "batch_size", K.UINT), Field(3, "compute_infer", K.MESSAGE, Lasted)),
        ResponseStats: (
            Field(1, "compute_infer", K.MESSAGE, Lasted),
            Field(3, "success", K.MESSAGE, Lasted),
            Field(5, "empty_response", K.MESSAGE, Lasted),
        ),
        ModelStats: (
            Field(1, "name", K.TEXT),
            Field(2, "version", K.TEXT),
            Field(3, "last_inference", K.UINT),
            Field(4, "inference_count", K.UINT),
            Field(5, "execution_count", K.UINT),
            Field(6, "inference_stats", K.MESSAGE, InferStats),
            Field(7, "batch_stats", K.MESSAGES, BatchStats),
            Field(9, "response_stats", K.MAP, ResponseStats),
        ),
        Statistics: (Field(1, "model_stats", K.MESSAGES, ModelStats),),
        InRepository: (
            Field(1, "repository_name", K.TEXT),
            Field(2, "model_name", K.TEXT),
            Field(3, "parameters", K.MAP, Parameter),
        ),
        InIndex: (
            Field(1, "name", K.TEXT),
            Field(2, "version", K.TEXT),
            Field(3, "state", K.TEXT),
            Field(4, "reason", K.TEXT),
        ),
        Index: (Field(1, "models", K.MESSAGES, InIndex),),
    }
)


def put(
    request: InferRequest | InferResponse, name: str, datatype: str, values: Sequence[float] | Sequence[str]
) -> None:
    """Add a tensor of one dimension."""
    tensor = Tensor(name, datatype, [len(values)])
    if isinstance(request, InferRequest):
        request.inputs.append(tensor)
    else:
        request.outputs.append(tensor)
    request.raw.append(packed(datatype, values))


def packed(datatype: str, values: Sequence[float] | Sequence[str]) -> bytes:
    """The bytes of a tensor: numbers little-endian, text (BYTES) each after its length."""
    if datatype == "BYTES":
        bodies = [str(value).encode() for value in values]
        return b"".join(_LENGTH.pack(len(body)) + body for body in bodies)
    numbers = array(SIZES[datatype][0], values)  # type codes have these sizes wherever CPython runs
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def numbers(datatype: str, raw: bytes) -> list[float]:
    """The numbers of a tensor. Raises Garbled."""
    code, size = SIZES.get(datatype, ("", 0))
    if not size or len(raw) % size:
        raise Garbled(f"{len(raw)} bytes are no {datatype}")
    values = array(code, raw)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()


def texts(raw: bytes) -> list[str]:
    """The texts of a BYTES tensor. Raises Garbled."""
    found, at = [], 0
    while at < len(raw):
        if at + 4 > len(raw):
            raise Garbled("a text's length is cut short")
        size = _LENGTH.unpack_from(raw, at)[0]
        at += 4
        if at + size > len(raw):
            raise Garbled(f"a text of {size} bytes is cut short")
        try:
            found.append(raw[at : at + size].decode())
        except UnicodeDecodeError as error:
            raise Garbled(f"text that is not UTF-8: {error.reason}") from error
        at += size
    return found
