"""Whom Triton has behind it, and how an answer is asked of each: Holdfast's own model, TensorRT-LLM, vLLM.

Each dialect turns a Generation into one request, and responses into ids. What it had said so far is kept in a Hearing, one for
each answer.
"""

import json
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from holdfast.domain.engine import Ability, Finding
from holdfast.domain.fault import BadRequest, EngineLost
from holdfast.domain.kserve import (
    TELL_FINAL,
    InferRequest,
    InferResponse,
    ModelMetadata,
    Parameter,
    Tensor,
    numbers,
    packed,
    put,
    texts,
)
from holdfast.domain.protobuf import Garbled
from holdfast.domain.release import Exactness
from holdfast.domain.request import Chunk, Finish, Generation, TokenLogprob
from holdfast.domain.triton import ASK_LOAD
from holdfast.policy.continuation import derived_seed

_MASK_64 = (1 << 64) - 1


class Tongue(Protocol):
    """Text of ids, and ids of text: for engines that know only text."""

    def text(self, ids: list[int]) -> str: ...

    def ids(self, text: str) -> list[int]: ...


@dataclass(slots=True)
class Hearing:
    """What came of one answer so far."""

    asked: Generation
    ids: int = 0

    @property
    def owed(self) -> int:
        return self.asked.max_tokens - len(self.asked.delivered_ids) - self.ids


class Dialect(Protocol):
    """One way to ask a model behind Triton for an answer."""

    @property
    def name(self) -> str: ...

    @property
    def exactness(self) -> Exactness: ...

    @property
    def findings(self) -> tuple[Finding, ...]: ...

    def request(self, model: str, generation: Generation) -> InferRequest:
        """Raises BadRequest for what this way can't carry."""
        ...

    def read(self, response: InferResponse, hearing: Hearing) -> Chunk:
        """Raises EngineLost for nonsense, Garbled for bytes that are none of their kind."""
        ...


def dialect_of(metadata: ModelMetadata, tongue: Tongue | None, eos_ids: frozenset[int]) -> Dialect:
    """By the inputs that the model has. Raises EngineLost where it is none that Holdfast knows."""
    inputs = {one.name for one in metadata.inputs}
    if {"input_ids", "delivered_len", "ask"} <= inputs:
        return Pearl()
    if {"input_ids", "input_lengths", "request_output_len"} <= inputs:
        return TensorRt(eos_ids)
    if {"text_input", "sampling_parameters"} <= inputs:
        if tongue is None:
            raise EngineLost(f"{metadata.name} knows only text: put its tokenizer.json into the folder at [model] path")
        return VllmText(tongue)
    names = ", ".join(sorted(inputs))
    raise EngineLost(f"{metadata.name} takes {names}: neither Holdfast's model, nor TensorRT-LLM's, nor vLLM's")


class Pearl:
    """Holdfast's own model in the Python backend (pearl/triton_model.py): ids, and equal tokens wherever an answer goes on."""

    name = "holdfast"
    exactness = Exactness.EXACT
    findings = (
        Finding(Ability.IDS_IN, True, "Holdfast's own model: input_ids"),
        Finding(Ability.IDS_OUT, True, "Holdfast's own model: output_ids"),
        Finding(Ability.SEED, True, "noise is keyed by seed and position"),
        Finding(Ability.GRAMMAR, True, "Holdfast's own model: grammar"),
        Finding(Ability.LED, True, "its grammar is led through what was delivered"),
        Finding(Ability.PRIORITY, False, "answers wait in the order in which they came"),
        Finding(Ability.LOGPROBS, True, "Holdfast's own model: logprobs"),
        Finding(Ability.COUNTERS, True, "it tells its steps when asked for its load"),
    )

    def request(self, model: str, generation: Generation) -> InferRequest:
        """See Dialect."""
        sampling, delivered = generation.sampling, generation.delivered_ids
        request = _request(model, generation.id)
        put(request, "input_ids", "INT32", generation.prompt_ids + delivered)
        put(request, "request_output_len", "INT32", [generation.max_tokens - len(delivered)])
        put(request, "temperature", "FP64", [sampling.temperature])
        put(request, "seed", "UINT64", [generation.seed & _MASK_64])
        told = (
            ("delivered_len", "INT32", len(delivered), 0),
            ("top_p", "FP64", sampling.top_p, 1.0),
            ("top_k", "INT32", sampling.top_k, 0),
            ("min_p", "FP64", sampling.min_p, 0.0),
            ("presence_penalty", "FP64", sampling.presence_penalty, 0.0),
            ("frequency_penalty", "FP64", sampling.frequency_penalty, 0.0),
            ("ignore_eos", "BOOL", sampling.ignore_eos, False),
            ("logprobs", "INT32", sampling.logprobs, -1),
        )
        for name, datatype, value, default in told:
            if value != default:
                put(request, name, datatype, [value])
        if generation.stop_ids:
            put(request, "stop_ids", "INT32", generation.stop_ids)
        if sampling.logit_bias:
            put(request, "logit_bias", "BYTES", [json.dumps(sampling.logit_bias)])
        if sampling.grammar:
            put(request, "grammar", "BYTES", [sampling.grammar])
        return request

    def read(self, response: InferResponse, hearing: Hearing) -> Chunk:
        """See Dialect."""
        tensors = _tensors(response)
        chunk = Chunk(_ids(tensors.get("output_ids")))
        if "cached_tokens" in tensors:
            chunk.cached_tokens = sum(_ids(tensors["cached_tokens"]))
        if "logprobs" in tensors:
            chunk.logprobs = _logprobs(tensors["logprobs"][1])
        if "finish" in tensors:
            chunk.finish = _finish("".join(texts(tensors["finish"][1])))
        return chunk


class TensorRt:
    """The model `tensorrt_llm` of the TensorRT-LLM backend: ids; it says that an answer has ended, and not why."""

    name = "tensorrt-llm"
    exactness = Exactness.GREEDY
    findings = (
        Finding(Ability.IDS_IN, True, "the tensorrt_llm model takes input_ids"),
        Finding(Ability.IDS_OUT, True, "the tensorrt_llm model gives output_ids"),
        Finding(Ability.SEED, True, "the tensorrt_llm model takes seed"),
        Finding(Ability.GRAMMAR, False, "its guided decoding knows no grammar over token ids"),
        Finding(Ability.LED, False, "its guided decoding begins anew"),
        Finding(Ability.PRIORITY, False, "not asked for"),
        Finding(Ability.LOGPROBS, False, "not asked for"),
        Finding(Ability.COUNTERS, True, "each response is counted as it comes; Triton itself counts whole answers"),
    )

    def __init__(self, eos_ids: frozenset[int]) -> None:
        self._eos_ids = eos_ids

    def request(self, model: str, generation: Generation) -> InferRequest:
        """See Dialect."""
        sampling, delivered = generation.sampling, generation.delivered_ids
        _no_grammar(generation)
        if sampling.logit_bias:
            raise BadRequest("TensorRT-LLM behind Triton is not asked for logit_bias", "logit_bias")
        request = _request(model, generation.id)
        ids = generation.prompt_ids + delivered
        _row(request, "input_ids", "INT32", ids)
        _row(request, "input_lengths", "INT32", [len(ids)])
        _row(request, "request_output_len", "INT32", [generation.max_tokens - len(delivered)])
        _row(request, "streaming", "BOOL", [True])
        _row(request, "exclude_input_in_output", "BOOL", [True])
        greedy = sampling.temperature == 0
        _row(request, "temperature", "FP32", [1.0 if greedy else sampling.temperature])
        _row(request, "runtime_top_k", "INT32", [1 if greedy else sampling.top_k])
        if not greedy:
            _row(request, "runtime_top_p", "FP32", [sampling.top_p])
            _row(request, "seed", "UINT64", [derived_seed(generation.seed, len(delivered))])
        for name in ("presence_penalty", "frequency_penalty"):
            if getattr(sampling, name):
                _row(request, name, "FP32", [getattr(sampling, name)])
        stops = self._stops(generation)
        if stops:
            _row(request, "end_id", "INT32", [stops[0]])
            _row(request, "pad_id", "INT32", [stops[0]])
            self._stop_words(request, stops)
        return request

    def read(self, response: InferResponse, hearing: Hearing) -> Chunk:
        """See Dialect. A stop id ends the answer, whether it comes as an id or shows only in the end."""
        tensors = _tensors(response)
        ids = _ids(tensors.get("output_ids"))
        if "sequence_length" in tensors:
            ids = ids[: max([0, *_ids(tensors["sequence_length"])])] if ids else ids
        asked = hearing.asked
        stops = self._stops(asked)
        for at, id in enumerate(ids):
            if id in stops:
                return Chunk(ids[:at], Finish.STOP)
        if len(ids) >= hearing.owed:
            return Chunk(ids[: hearing.owed], Finish.LENGTH)
        if response.final:
            if not stops:
                raise EngineLost(
                    f"the answer ended {hearing.owed - len(ids)} tokens early, and nothing could have stopped it"
                )
            return Chunk(ids, Finish.STOP)
        return Chunk(ids)

    def _stops(self, asked: Generation) -> tuple[int, ...]:
        ignored = self._eos_ids if asked.sampling.ignore_eos else frozenset()
        return tuple(id for id in asked.stop_ids if id not in ignored)

    @staticmethod
    def _stop_words(request: InferRequest, stop_ids: tuple[int, ...]) -> None:
        """[1, 2, n]: the ids of all stop words in a row, then where each of them ends."""
        request.inputs.append(Tensor("stop_words_list", "INT32", [1, 2, len(stop_ids)]))
        request.raw.append(packed("INT32", [*stop_ids, *range(1, len(stop_ids) + 1)]))


@dataclass
class VllmText:
    """A model of the vLLM backend: text in, text out. Answers go on by their text, so ids after a move are a fair sample."""

    tongue: Tongue
    name: str = "vllm"
    exactness: Exactness = Exactness.FAIR
    findings: tuple[Finding, ...] = field(
        default=(
            Finding(Ability.IDS_IN, False, "Triton's vLLM backend takes text_input: text only"),
            Finding(Ability.IDS_OUT, False, "Triton's vLLM backend gives text_output: text only"),
            Finding(Ability.SEED, True, "sampling_parameters has seed"),
            Finding(Ability.GRAMMAR, False, "grammars are over ids, and it has none"),
            Finding(Ability.LED, False, "grammars are over ids, and it has none"),
            Finding(Ability.PRIORITY, False, "the backend has no input for it"),
            Finding(Ability.LOGPROBS, False, "not asked for"),
            Finding(Ability.COUNTERS, True, "each response is counted as it comes; Triton itself counts whole answers"),
        )
    )

    def request(self, model: str, generation: Generation) -> InferRequest:
        """See Dialect."""
        _no_grammar(generation)
        sampling, delivered = generation.sampling, generation.delivered_ids
        parameters: dict[str, object] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "max_tokens": generation.max_tokens - len(delivered),
            "seed": derived_seed(generation.seed, len(delivered)),
            "ignore_eos": sampling.ignore_eos,
            "stop_token_ids": list(generation.stop_ids),
            "skip_special_tokens": False,
        }
        request = _request(model, generation.id)
        put(request, "text_input", "BYTES", [self.tongue.text(generation.prompt_ids + delivered)])
        put(request, "stream", "BOOL", [True])
        put(request, "exclude_input_in_output", "BOOL", [True])
        put(request, "return_finish_reason", "BOOL", [True])
        put(request, "sampling_parameters", "BYTES", [json.dumps(parameters)])
        return request

    def read(self, response: InferResponse, hearing: Hearing) -> Chunk:
        """See Dialect. Ids are those of the text, counted up to what was asked for."""
        tensors = _tensors(response)
        text = "".join(texts(tensors["text_output"][1])) if "text_output" in tensors else ""
        ids = self.tongue.ids(text)[: hearing.owed] if text else []
        reason = "".join(texts(tensors["finish_reason"][1])) if "finish_reason" in tensors else ""
        return Chunk(ids, None if reason in ("", "None") else _finish(reason))


def heard(dialect: Dialect, response: InferResponse, hearing: Hearing, vocab: int) -> Chunk:
    """A response's chunk. Raises EngineLost for what no engine in its senses says."""
    try:
        chunk = dialect.read(response, hearing)
    except Garbled as error:
        raise EngineLost(f"Triton sent garbage: {error}") from error
    if len(chunk.ids) > hearing.owed:
        raise EngineLost(f"Triton gave {len(chunk.ids)} tokens where {hearing.owed} were owed")
    if chunk.ids and (min(chunk.ids) < 0 or (vocab and max(chunk.ids) >= vocab)):
        raise EngineLost(f"Triton gave a token id outside the vocabulary of {vocab}")
    hearing.ids += len(chunk.ids)
    return chunk


def ask_load(model: str, asked: str = ASK_LOAD) -> InferRequest:
    """Ask Holdfast's own model about itself: it goes the way of every request, and costs no step."""
    request = _request(model, "")
    put(request, "ask", "BYTES", [asked])
    return request


def told_of(response: InferResponse) -> bytes:
    """The JSON of its answer. Raises Garbled."""
    tensors = _tensors(response)
    if "told" not in tensors:
        raise Garbled("an answer without `told`")
    return "".join(texts(tensors["told"][1])).encode()


def _request(model: str, id: str) -> InferRequest:
    return InferRequest(model, "", id, {TELL_FINAL: Parameter(bool_param=True)}, [], [], [])


def _row(request: InferRequest, name: str, datatype: str, values: list[float] | list[int] | list[bool]) -> None:
    """A tensor with a batch's dimension in front."""
    request.inputs.append(Tensor(name, datatype, [1, len(values)]))
    request.raw.append(packed(datatype, values))


def _tensors(response: InferResponse) -> dict[str, tuple[str, bytes]]:
    """(type, bytes) by name. Raises Garbled where some have no bytes."""
    if len(response.outputs) != len(response.raw):
        raise Garbled(f"{len(response.outputs)} tensors and {len(response.raw)} contents")
    return {one.name: (one.datatype, raw) for one, raw in zip(response.outputs, response.raw, strict=True)}


def _ids(tensor: tuple[str, bytes] | None) -> list[int]:
    if tensor is None:
        return []
    datatype, raw = tensor
    if datatype not in ("INT32", "INT64", "UINT32"):
        raise Garbled(f"ids of type {datatype}")
    return [int(id) for id in numbers(datatype, raw)]


def _logprobs(raw: bytes) -> list[TokenLogprob]:
    try:
        return msgspec.json.decode("".join(texts(raw)), type=list[TokenLogprob])
    except msgspec.MsgspecError as error:
        raise Garbled(f"logprobs that can't be read: {error}") from error


def _finish(word: str) -> Finish:
    try:
        return Finish(word)
    except ValueError:
        raise EngineLost(f"the answer ended with {word!r}") from None


def _no_grammar(generation: Generation) -> None:
    if generation.sampling.grammar:
        raise BadRequest("this engine can't hold an answer to a grammar", "response_format")
