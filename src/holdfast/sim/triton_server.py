"""A scripted Triton Inference Server: KServe v2 over gRPC, on loopback, in this event loop. It can be told to misbehave.

Three models can stand behind it: Holdfast's own, TensorRT-LLM's and vLLM's (text). Each token is a function of the ids before it,
the place, and the seed where there is chance, so whoever knows them knows the answer. What it does when something goes wrong was
seen on a real Triton 2.51: while the process of a model is dead or frozen, health stays green, its streams hear nothing more, and
every inference ends with the same sentence a second later; unloading and loading makes a new process.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import grpc
import msgspec
from grpc import aio
from msgspec import Struct

from holdfast.domain.kserve import (
    CODEC,
    FINAL,
    SERVICE,
    Index,
    InferRequest,
    InferResponse,
    InIndex,
    InRepository,
    Lasted,
    Live,
    ModelMetadata,
    ModelStats,
    Named,
    Nothing,
    Parameter,
    ResponseStats,
    ServerMetadata,
    Statistics,
    StreamItem,
    Tensor,
    numbers,
    packed,
    put,
    texts,
)
from holdfast.domain.ports import Clock
from holdfast.domain.release import Exactness, Release
from holdfast.domain.replica import Load
from holdfast.domain.request import TokenLogprob
from holdfast.domain.triton import BAD, INPUTS, REFUSED, Told

PEARL, TENSORRT, VLLM = "pearl", "tensorrt", "vllm"
_NAMES = {
    PEARL: tuple(name for name, _, _ in INPUTS),
    TENSORRT: ("input_ids", "input_lengths", "request_output_len", "streaming", "stop_words_list", "seed", "stop"),
    VLLM: ("text_input", "stream", "sampling_parameters", "exclude_input_in_output", "return_finish_reason"),
}
_WORD = re.compile(r"<(\d+)>")
_GRAMMAR_IDS = re.compile(r"<\[(\d+)\]>")
SENTENCES = {
    "refuse": "Request for unknown model: '{model}' has no available versions",
    "crowd": "Exceeds maximum queue size",
    "bad": "[request id: 1] unexpected shape for input 'input_ids' for model '{model}'. Expected [-1], got [0]",
    "fault": "Failed to process the request(s) for model instance '{model}_0_0', message: CUDA error",
    "sick": "Stub process '{model}_0_0' is not healthy.",
}


class WordTongue:
    """Text whose words are ids: for a scripted model that knows only text."""

    def text(self, ids: list[int]) -> str:
        return "".join(f"<{id}>" for id in ids)

    def ids(self, text: str) -> list[int]:
        return [int(word) for word in _WORD.findall(text)]


class TritonScript(Struct, frozen=True, kw_only=True):
    """Who stands behind it, and how it behaves."""

    dialect: str = PEARL
    model: str = "holdfast"
    key: str = ""  # asked of callers of inference and repository, in the header of --grpc-restricted-protocol
    slots: int = 4
    queue_max: int = 2
    context_tokens_max: int = 512
    vocab_size: int = 512
    token_s: float = 0.0005
    sick_s: float = 0.01  # until an inference at a dead process fails; 1.0 with the real one


@dataclass(slots=True)
class _Asked:
    """One request as its dialect says it: `ids` holds all before the answer's next token."""

    ids: list[int]
    prompt_tokens: int
    owed: int
    seed: int = 0
    stops: frozenset[int] = frozenset()
    logprobs: bool = False
    mishap: tuple[str, int] = ("", 0)
    held: tuple[int, ...] = ()  # a grammar's only answer
    made: list[int] = field(default_factory=list)


class _Refusal(Exception):
    """An error item ends the answer."""


class TritonServer:
    """From `start` to `stop` it listens at `url`. `befall` is for the next attempt, the levers are for all."""

    def __init__(self, script: TritonScript, clock: Clock) -> None:
        self.script, self._clock = script, clock
        self.url = ""
        self.working = 0  # attempts that run or wait
        self.ready = True
        self.repairs = 0
        self._server: aio.Server | None = None
        self._slots = asyncio.Semaphore(script.slots)
        self._mishaps: list[tuple[str, int]] = []
        self._going, self._heard, self._relented = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._going.set()
        self._heard.set()
        self._sick, self._loaded = False, True
        self._steps = 0

    async def start(self) -> str:
        """Listen at a free port; the url."""
        self._server = aio.server()
        unary: dict[str, tuple[type[Any], Callable[[Any, Any], Awaitable[Struct]]]] = {
            "ServerLive": (Nothing, self._live),
            "ServerReady": (Nothing, self._live),
            "ModelReady": (Named, self._live),
            "ServerMetadata": (Nothing, self._server_metadata),
            "ModelMetadata": (Named, self._metadata),
            "ModelStatistics": (Named, self._statistics),
            "RepositoryIndex": (InRepository, self._index),
            "RepositoryModelUnload": (InRepository, self._unload),
            "RepositoryModelLoad": (InRepository, self._load),
        }
        handlers: dict[str, Any] = {
            name: grpc.unary_unary_rpc_method_handler(self._unary(kind, answer))
            for name, (kind, answer) in unary.items()
        }
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._stream)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        self.url = f"grpc://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self.url

    async def stop(self) -> None:
        """Gone, as after SIGKILL."""
        if self._server is not None:
            await self._server.stop(None)

    def befall(self, kind: str, after_tokens: int = 0) -> None:
        """The next attempt: refuse, crowd, bad on arrival; fault, abort, forget, cut, garbage, stall after so many tokens."""
        self._mishaps.append((kind, after_tokens))

    def freeze(self) -> None:
        """No attempt gets anything; every door answers."""
        self._going.clear()

    def fall_silent(self) -> None:
        """The doors take words and say nothing."""
        self._heard.clear()
        self._going.clear()

    def kill_stub(self) -> None:
        """The model's process is dead: health stays green."""
        self._sick = True

    def relent(self) -> None:
        """End what was stalled, frozen or silent."""
        self._going.set()
        self._heard.set()
        self._relented.set()
        self._relented = asyncio.Event()

    def _unary(
        self, kind: type[Any], answer: Callable[[Any, Any], Awaitable[Struct]]
    ) -> Callable[[bytes, Any], Awaitable[bytes]]:
        async def handle(raw: bytes, context: Any) -> bytes:
            await self._heard.wait()
            return CODEC.encode(await answer(CODEC.decode(kind, raw), context))

        return handle

    async def _live(self, message: Struct, context: Any) -> Struct:
        return Live(self.ready)

    async def _server_metadata(self, message: Struct, context: Any) -> Struct:
        return ServerMetadata("triton", "2.51.0", ["model_repository", "statistics"])

    async def _metadata(self, named: Named, context: Any) -> Struct:
        if named.name != self.script.model:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{named.name}' is not found")
        tensors = [Tensor(name, "BYTES", [-1]) for name in _NAMES[self.script.dialect]]
        return ModelMetadata(self.script.model, ["1"], "python", tensors, [])

    async def _statistics(self, named: Named, context: Any) -> Struct:
        made = ResponseStats(success=Lasted(self._steps, 0))
        return Statistics([ModelStats(name=self.script.model, version="1", response_stats={"0": made})])

    async def _index(self, message: Struct, context: Any) -> Struct:
        stuck = not self._loaded and self.working
        state = "READY" if self._loaded else "UNLOADING" if stuck else "UNAVAILABLE"
        return Index([InIndex(self.script.model, "1", state, "")])

    async def _unload(self, message: InRepository, context: Any) -> Struct:
        await self._check_key(context)
        self._loaded = False
        return Nothing()

    async def _load(self, message: InRepository, context: Any) -> Struct:
        await self._check_key(context)
        if not self._loaded:  # else it does nothing
            self._loaded, self._sick = True, False
            self.repairs += 1
        return Nothing()

    async def _check_key(self, context: Any) -> None:
        told = dict(context.invocation_metadata()).get("triton-grpc-protocol-holdfast-key", "")
        if told != self.script.key:
            why = "This protocol is restricted, expecting header 'triton-grpc-protocol-holdfast-key'"
            await context.abort(grpc.StatusCode.UNAVAILABLE, why)

    async def _stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await self._heard.wait()
        await self._check_key(context)
        async for raw in requests:
            self.working += 1
            try:
                async for item in self._answer(CODEC.decode(InferRequest, raw), context):
                    await self._heard.wait()
                    yield item
            except _Refusal as refusal:
                yield CODEC.encode(StreamItem(str(refusal)))
            finally:
                self.working -= 1

    async def _answer(self, request: InferRequest, context: Any) -> AsyncIterator[bytes]:
        tensors = {one.name: (one.datatype, raw) for one, raw in zip(request.inputs, request.raw, strict=True)}
        if not self._loaded:
            raise self._refusal("refuse")
        if self._sick:
            await self._clock.sleep(self.script.sick_s)
            raise self._refusal("sick")
        if "ask" in tensors:
            self.working -= 1  # it is no attempt
            yield self._told()
            self.working += 1
            return
        asked = self._read(tensors)
        if self.working > self.script.slots + self.script.queue_max:
            own = f"{REFUSED}all {self.script.slots} slots are taken"
            raise _Refusal(own if self.script.dialect == PEARL else SENTENCES["crowd"])
        async with self._slots:
            async for item in self._tokens(asked, context):
                yield item

    async def _tokens(self, asked: _Asked, context: Any) -> AsyncIterator[bytes]:
        finish = ""
        while not finish:
            await self._clock.sleep(self.script.token_s)
            await self._going.wait()
            if self._sick:
                await asyncio.Event().wait()  # nothing ever comes, not even an error
            if asked.mishap[0] and len(asked.made) == asked.mishap[1]:
                spoilt = await self._mishap(asked.mishap[0], context)
                if spoilt is not None:
                    yield spoilt
                    return
            id = self._next(asked)
            self._steps += 1
            if id in asked.stops:
                finish = "stop"
                yield self._item(asked, [], finish)
                return
            asked.ids.append(id)
            asked.made.append(id)
            full = self.script.dialect == PEARL and len(asked.ids) >= self.script.context_tokens_max
            finish = "length" if len(asked.made) >= asked.owed or full else ""
            yield self._item(asked, [id], finish)

    async def _mishap(self, kind: str, context: Any) -> bytes | None:
        """What ends the answer here, or None: it goes on after a stall."""
        if kind == "fault":
            raise self._refusal("fault")
        if kind == "cut":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        if kind == "stall":
            await self._relented.wait()
            return None
        if kind == "garbage":
            return b"\xff\xfe<html>bad gateway</html>"
        response = InferResponse(self.script.model, "1", "", {FINAL: Parameter(bool_param=True)}, [], [])
        if kind == "abort":
            put(response, "finish_reason" if self.script.dialect == VLLM else "finish", "BYTES", ["abort"])
        return CODEC.encode(StreamItem("", response))

    def _read(self, tensors: dict[str, tuple[str, bytes]]) -> _Asked:
        """What is asked for. Raises _Refusal for what the mishap or the limits refuse."""
        mishap = self._mishaps.pop(0) if self._mishaps else ("", 0)
        if mishap[0] in ("refuse", "crowd", "bad"):
            raise self._refusal(mishap[0])

        def ints(name: str, default: int = 0) -> list[int]:
            return [int(one) for one in numbers(*tensors[name])] if name in tensors else [default]

        if self.script.dialect == VLLM:
            told = json.loads(texts(tensors["sampling_parameters"][1])[0])
            ids = WordTongue().ids(texts(tensors["text_input"][1])[0])
            seed = int(told["seed"]) if told["temperature"] else 0
            return _Asked(
                ids, len(ids), int(told["max_tokens"]), seed, frozenset(told["stop_token_ids"]), mishap=mishap
            )
        ids, owed = ints("input_ids"), ints("request_output_len")[0]
        if self.script.dialect == TENSORRT:
            stops = frozenset(ints("stop_words_list")[: len(ints("stop_words_list")) // 2])
            seed = 0 if ints("runtime_top_k") == [1] else ints("seed")[0]
            return _Asked(ids, len(ids), owed, seed, stops, mishap=mishap)
        prompt_tokens = len(ids) - ints("delivered_len")[0]
        if prompt_tokens >= self.script.context_tokens_max:
            room = f"a prompt of {prompt_tokens} tokens leaves no room in a context of {self.script.context_tokens_max}"
            raise _Refusal(f"{BAD}prompt_ids: {room}")
        warm = numbers(*tensors["temperature"])[0] > 0
        stops = frozenset(ints("stop_ids")) if "stop_ids" in tensors else frozenset()
        seed = ints("seed")[0] if warm else 0
        grammar = texts(tensors["grammar"][1])[0] if "grammar" in tensors else ""
        held = tuple(int(id) for id in _GRAMMAR_IDS.findall(grammar))  # grammars of ids in a row are all that it knows
        if held and tuple(ids[prompt_tokens:]) != held[: len(ids) - prompt_tokens]:
            raise _Refusal(f"{BAD}delivered_ids: the grammar does not allow them")
        return _Asked(ids, prompt_tokens, owed, seed, stops, ints("logprobs", -1)[0] >= 0, mishap, held)

    def _next(self, asked: _Asked) -> int:
        """16 to 271: of the last ids, the place, and the seed where there is chance."""
        place = len(asked.ids) - asked.prompt_tokens
        if place < len(asked.held):
            return asked.held[place]
        words = [*asked.ids[-4:], len(asked.ids), asked.seed]
        digest = blake2b(repr(words).encode(), digest_size=8).digest()
        return 16 + int.from_bytes(digest, "big") % 256

    def _item(self, asked: _Asked, ids: list[int], finish: str) -> bytes:
        response = InferResponse(self.script.model, "1", "", {FINAL: Parameter(bool_param=bool(finish))}, [], [])
        if self.script.dialect == VLLM:
            put(response, "text_output", "BYTES", [WordTongue().text(ids)])
            put(response, "finish_reason", "BYTES", [finish or "None"])
        elif self.script.dialect == TENSORRT:
            response.outputs = [
                Tensor("output_ids", "INT32", [1, 1, len(ids)]),
                Tensor("sequence_length", "INT32", [1, 1]),
            ]
            response.raw = [packed("INT32", ids), packed("INT32", [len(ids)])]
        else:
            put(response, "output_ids", "INT32", ids)
            if finish:
                put(response, "finish", "BYTES", [finish])
            if asked.logprobs:
                told = [TokenLogprob(id, -0.5, ((id, -0.5),)) for id in ids]
                put(response, "logprobs", "BYTES", [msgspec.json.encode(told).decode()])
        return CODEC.encode(StreamItem("", response))

    def _told(self) -> bytes:
        script = self.script
        running = min(self.working, script.slots)
        told = Told(
            release=Release(model="scripted", engine="embedded", digest="5c" * 32, exactness=Exactness.EXACT),
            load=Load(step=self._steps, running=running, queued=self.working - running, slots=script.slots),
            vocab_size=script.vocab_size,
            context_tokens_max=script.context_tokens_max,
            slots=script.slots,
        )
        response = InferResponse(script.model, "1", "", {FINAL: Parameter(bool_param=True)}, [], [])
        put(response, "told", "BYTES", [msgspec.json.encode(told).decode()])
        return CODEC.encode(StreamItem("", response))

    def _refusal(self, kind: str) -> _Refusal:
        return _Refusal(SENTENCES[kind].format(model=self.script.model))
