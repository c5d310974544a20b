"""Triton Inference Server as a replica's engine: KServe v2 over gRPC, one ModelStreamInfer stream for each answer.

Triton's health endpoints stay green when the process that runs a model (its Python backend's "stub") is dead or frozen, and it
never starts that process again. So readiness is not believed: `probe` sends a small inference through the model, and the evidence
against a stub is kept until an inference has succeeded. `repair` unloads and loads the model, which makes a new stub.

A frozen stub must be replaced before it thaws: Triton 2.51 aborts, whole, at the first request after the thaw.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from hashlib import sha256
from typing import Any

import grpc
import msgspec
from grpc import aio
from msgspec import Struct, structs

from holdfast.domain.engine import Abilities, EngineKind
from holdfast.domain.fault import BadRequest, EngineLost, EngineRefused, Fault
from holdfast.domain.kserve import (
    CODEC,
    SERVICE,
    Index,
    InferRequest,
    InferResponse,
    InRepository,
    Live,
    ModelMetadata,
    Named,
    Nothing,
    ServerMetadata,
    Statistics,
    StreamItem,
)
from holdfast.domain.ports import Clock
from holdfast.domain.protobuf import Garbled
from holdfast.domain.release import Release
from holdfast.domain.replica import Load, Probe
from holdfast.domain.request import Chunk, Finish, Generation, Sampling
from holdfast.domain.triton import ASK_RELEASE, Told
from holdfast.engine.triton_dialects import Dialect, Hearing, Pearl, Tongue, ask_load, dialect_of, heard, told_of
from holdfast.policy.triton_faults import Reading, read

KEY_HEADER = "triton-grpc-protocol-holdfast-key"  # of --grpc-restricted-protocol=...:holdfast-key=...
_MISSED_MAX = 2
_UNLOADED_S = 1.0  # a dead stub with nothing under way is unloaded in 0.5 s
_OPTIONS = (
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", -1),  # a prompt of a million ids has 4 MB
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class TritonSettings(Struct, frozen=True, kw_only=True):
    """How one Triton is spoken to. `weights` is the digest of what it serves, for models that can't tell it."""

    model: str = "holdfast"
    serve_as: str = ""
    weights: str = ""
    slots: int = 0
    context_tokens_max: int = 0
    eos_ids: tuple[int, ...] = ()  # what ends answers by themselves; requests may ask to ignore these
    probe_s: float = 3.0  # a dead stub is confessed after 1.0 s
    canary_s: float = 15.0  # a foreign model that stands idle is asked for a token this often
    repair_s: float = 120.0  # to load a model anew


class TritonEngine:
    """Implements ForeignEngine. `url` is grpc://host:port."""

    def __init__(
        self, url: str, clock: Clock, settings: TritonSettings, key: str = "", tongue: Tongue | None = None
    ) -> None:
        self._clock, self._settings, self._tongue = clock, settings, tongue
        self._where = url.removeprefix("grpc://")
        self._metadata = ((KEY_HEADER, key),) if key else ()
        self._channel = aio.insecure_channel(self._where, options=_OPTIONS)
        self._dialect: Dialect | None = None
        self._release: Release | None = None
        self._context, self._vocab = settings.context_tokens_max, 0
        self._sick = ""  # the evidence against the model's process, until an inference succeeds
        self.alive: Callable[[], bool] | None = None  # whether a process runs the model, where somebody can see that
        self._missed = 0  # questions in a row that the model let pass while Triton called itself ready
        self._heard = 0  # responses that came
        self._seen, self._canary_at = -1, clock.now()
        self._running = 0
        self._calls: set[Any] = set()
        self._cut: dict[Any, str] = {}
        self._closed = False

    @property
    def model(self) -> str:
        """Its name in Triton's repository."""
        return self._settings.model

    @property
    def sick(self) -> str:
        """Why the model's process is believed to be dead or frozen; empty when it is not."""
        return self._sick

    async def learn(self) -> Abilities:
        """See the port."""
        try:
            return await self._learn()
        except EngineRefused as refused:
            raise EngineLost(f"{refused.why}; it serves {await self._served()}") from None

    async def _learn(self) -> Abilities:
        server = await self._ask("ServerMetadata", Nothing(), ServerMetadata)
        metadata = await self._ask("ModelMetadata", Named(self._settings.model), ModelMetadata)
        self._dialect = dialect = dialect_of(metadata, self._tongue, frozenset(self._settings.eos_ids))
        slots, context = self._settings.slots, self._settings.context_tokens_max
        if isinstance(dialect, Pearl):
            told = await self._told(ASK_RELEASE)
            slots, context, self._vocab = told.slots, told.context_tokens_max, told.vocab_size
            self._release = structs.replace(told.release, engine=EngineKind.TRITON)
        else:
            parts = (server.version, metadata.platform, *metadata.versions, dialect.name, self._settings.weights)
            self._release = Release(
                model=self._settings.serve_as or self._settings.model,
                engine=EngineKind.TRITON,
                digest=sha256("\0".join(parts).encode()).hexdigest(),
                exactness=dialect.exactness,
            )
        self._context = context
        return Abilities(
            kind=EngineKind.TRITON,
            version=f"{server.version} ({dialect.name})",
            served_as=metadata.name,
            findings=dialect.findings,
            slots=slots,
            context_tokens_max=context,
        )

    def describe(self) -> Release | None:
        return self._release

    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        """See the port."""
        dialect = self._dialect
        if dialect is None:
            raise EngineRefused("Triton was not asked yet what it serves")
        generation = self._fitting(generation)
        if self._sick:  # it would wait in Triton behind all others, each of which takes a second to fail
            raise EngineRefused(self._sick)
        if len(generation.delivered_ids) >= generation.max_tokens:
            yield Chunk([], Finish.LENGTH)  # only the word that it had ended was lost
            return
        hearing = Hearing(generation)
        async with aclosing(self._pumped(dialect.request(self._settings.model, generation))) as responses:
            async for response in responses:
                chunk = heard(dialect, response, hearing, self._vocab)
                if chunk.ids or chunk.finish is not None:
                    yield chunk
                if chunk.finish is not None:
                    return
                if response.final:
                    break
        raise EngineLost(f"Triton ended the answer after {hearing.ids} tokens without saying why")

    async def probe(self) -> Probe:
        """See the port. Not ready: the model's process is dead or frozen, and `repair` may help."""
        if self.alive is not None and not self.alive():
            self._condemn("Triton's model process is dead: none is left")
            return Probe(False, Load(step=self._heard, running=self._running), self._sick)
        try:
            load = await self._look()
        except EngineRefused as refused:
            raise EngineLost(refused.why) from None
        except EngineLost:
            if not self._sick:
                await self._count_missed()
            if not self._sick:
                raise
            return Probe(False, Load(step=self._heard, running=self._running), self._sick)
        return Probe(not self._sick, load, self._sick)

    async def _count_missed(self) -> None:
        """A question was let pass. Where Triton itself answers that it is ready, the model behind it is dead or frozen, with so
        many requests before ours that the sentence which says so does not come in time. Raises EngineLost: Triton is silent."""
        try:
            ready = (await self._ask("ServerReady", Nothing(), Live)).yes
        except EngineRefused as refused:
            raise EngineLost(refused.why) from None
        self._missed = self._missed + 1 if ready else 0
        if self._missed >= _MISSED_MAX:
            limit_s = _MISSED_MAX * self._settings.probe_s
            self._condemn(
                f"Triton's model process is dead or frozen: nothing in {limit_s:g} s, and Triton calls itself ready"
            )

    def _condemn(self, why: str) -> None:
        """Keep the evidence, and end what waits there: Triton would let it wait for good."""
        self._sick = why
        self._cut_all(why)

    async def repair(self) -> str:
        """Unload the model and load it again: its process is ended, a frozen one too, and a new one begins.

        Returns what was done, as a sentence.

        Raises:
            EngineLost: it is no better.
        """
        began, model, why = self._clock.now(), self._settings.model, self._sick or "asked for"
        named = InRepository(model_name=model)
        try:
            await self._ask("RepositoryModelUnload", named, Nothing)  # answered at once, or the server is silent
            await self._until_gone(model, self._clock.now() + _UNLOADED_S)
            await self._ask("RepositoryModelLoad", named, Nothing, self._settings.repair_s)
            self._sick, self._missed = "", 0
            await self._look(canary=True)
        except (EngineRefused, EngineLost, BadRequest) as fault:
            raise EngineLost(f"unloading and loading {model} did not help: {fault.why}") from fault
        return f"{model} was unloaded and loaded in {self._clock.now() - began:.1f} s ({why})"

    async def close(self) -> None:
        """Hang up: Triton cancels what was under way."""
        self._closed = True
        self._cut_all("this side has closed its connection to Triton")
        await self._channel.close()

    def _fitting(self, generation: Generation) -> Generation:
        """Check what an engine of ours checks, and bound the answer by the context."""
        ids = generation.prompt_ids
        if not ids:
            raise BadRequest("prompt_ids is empty: send at least one token", "prompt_ids")
        if generation.max_tokens < 1:
            raise BadRequest(f"max_tokens is {generation.max_tokens}: ask for at least one token", "max_tokens")
        for name, some in (("prompt_ids", ids), ("delivered_ids", generation.delivered_ids)):
            if some and (min(some) < 0 or max(some) >= (self._vocab or 1 << 31)):
                raise BadRequest(f"{name} holds a token id outside the vocabulary of {self._vocab or 1 << 31}", name)
        if not self._context:
            return generation
        room = self._context - len(ids)
        if room < 1:
            raise BadRequest(
                f"a prompt of {len(ids)} tokens leaves no room in a context of {self._context}",
                "prompt_ids",
                "context_length_exceeded",
            )
        return generation if generation.max_tokens <= room else structs.replace(generation, max_tokens=room)

    async def _look(self, canary: bool = False) -> Load:
        """Ask the model itself: its load where it is ours; else Triton's statistics, and a token when it stands still."""
        if isinstance(self._dialect, Pearl):
            return (await self._told()).load  # its own steps alone: being asked is no progress
        named = Named(self._settings.model)
        if not (await self._ask("ModelReady", named, Live)).yes:
            raise EngineLost(f"Triton says that {self._settings.model} is not ready")
        stats = await self._ask("ModelStatistics", named, Statistics)
        progress = self._heard + sum(one.progress for one in stats.model_stats)
        now = self._clock.now()
        due = not self._running and now - self._canary_at >= self._settings.canary_s
        if self._dialect is not None and (canary or self._sick or (due and progress == self._seen)):
            await self._canary(self._dialect)
            self._canary_at = now
        elif progress != self._seen:
            self._seen, self._canary_at = progress, now
        return Load(step=progress, running=self._running)

    async def _canary(self, dialect: Dialect) -> None:
        """One token: readiness alone is no evidence."""
        asked = Generation(id="canary", prompt_ids=[1], sampling=Sampling(temperature=0.0), max_tokens=1)
        request = dialect.request(self._settings.model, asked)
        async with aclosing(self._stream(request, self._settings.probe_s)) as responses:
            await anext(responses, None)

    async def _told(self, asked: str = "load") -> Told:
        request = ask_load(self._settings.model, asked)
        async with aclosing(self._stream(request, self._settings.probe_s)) as responses:
            async for response in responses:
                try:
                    return msgspec.json.decode(told_of(response), type=Told)
                except (Garbled, msgspec.MsgspecError) as error:
                    raise EngineLost(f"Triton's model tells nonsense of itself: {error}") from error
        raise EngineLost("Triton's model told nothing of itself")

    async def _pumped(self, request: InferRequest) -> AsyncGenerator[InferResponse, None]:
        """The responses, taken from Triton as they come: `running` counts what it has not finished, read by somebody or not."""
        arrived: asyncio.Queue[InferResponse | Fault | None] = asyncio.Queue()

        async def pump() -> None:
            self._running += 1
            try:
                async with aclosing(self._stream(request, None)) as responses:
                    async for response in responses:
                        arrived.put_nowait(response)
                        if response.final:
                            break
            except (EngineLost, EngineRefused, BadRequest) as fault:
                arrived.put_nowait(fault)
            finally:
                self._running -= 1
                arrived.put_nowait(None)  # whatever ended it, nobody waits for more

        pumping = asyncio.create_task(pump())
        try:
            while (came := await arrived.get()) is not None:
                if isinstance(came, Fault):
                    raise came
                yield came
        finally:
            pumping.cancel()
            await asyncio.gather(pumping, return_exceptions=True)

    async def _stream(self, request: InferRequest, timeout_s: float | None) -> AsyncGenerator[InferResponse, None]:
        """The responses to one request. Closing it cancels the call, which Triton tells the model.

        Raises:
            EngineRefused, EngineLost, BadRequest: see policy/triton_faults.py.
        """
        self._check_open()
        # One request is the whole upward stream; sent so, a refusal keeps its status (a failed write would hide it).
        method = self._channel.unary_stream(f"/{SERVICE}/ModelStreamInfer")
        call = method(CODEC.encode(request), timeout=timeout_s, metadata=self._metadata)
        self._calls.add(call)
        begun = False
        try:
            while (raw := await call.read()) is not aio.EOF:
                item = CODEC.decode(StreamItem, raw)
                if item.error_message or item.infer_response is None:
                    raise self._fault(item.error_message or "an item without a response", "", begun)
                self._heard += 1
                self._sick, self._missed = "", 0
                begun = begun or bool(item.infer_response.raw)
                yield item.infer_response
            raise self._fault(await call.details() or "the stream ended", _name(await call.code()), begun)
        except aio.AioRpcError as error:
            raise self._fault(error.details() or "no reason was given", _name(error.code()), begun) from None
        except Garbled as error:
            raise EngineLost(f"Triton sent garbage: {error}") from error
        except asyncio.CancelledError:
            if call not in self._cut:
                raise
            raise EngineLost(self._cut[call]) from None
        finally:
            self._calls.discard(call)
            self._cut.pop(call, None)
            call.cancel()

    async def _ask(self, method: str, message: Struct, answer: "type[Any]", timeout_s: float = 0.0) -> Any:
        """One unary call. Raises EngineRefused or EngineLost, by what came back."""
        self._check_open()
        call = self._channel.unary_unary(f"/{SERVICE}/{method}")
        try:
            raw = await call(
                CODEC.encode(message), timeout=timeout_s or self._settings.probe_s, metadata=self._metadata
            )
            return CODEC.decode(answer, raw)
        except aio.AioRpcError as error:
            raise self._fault(f"{method}: {error.details()}", _name(error.code()), False) from None
        except Garbled as error:
            raise EngineLost(f"Triton sent garbage: {error}") from error

    async def _served(self) -> str:
        """What it serves, for a sentence."""
        try:
            index = await self._ask("RepositoryIndex", InRepository(), Index)
        except (EngineLost, EngineRefused, BadRequest) as fault:
            return f"nothing that it tells ({fault.why})"
        return ", ".join(f"{one.name} ({one.state or 'not loaded'})" for one in index.models) or "no model"

    async def _until_gone(self, model: str, deadline: float) -> None:
        """Unloading goes on after its answer, and a load that comes too early finds the old model ready and does nothing.

        With streams under way at a dead stub the old model stays `UNLOADING` for good; then a load makes a new one beside it.
        """
        while self._clock.now() < deadline:
            index = await self._ask("RepositoryIndex", InRepository(), Index)
            states = [one.state for one in index.models if one.name == model]
            if not any(state in ("READY", "UNLOADING", "LOADING") for state in states):
                return
            await self._clock.sleep(0.05)

    def _fault(self, said: str, code: str, begun: bool) -> Fault:
        reading: Reading = read(said, code, begun)
        if reading.sick:
            self._condemn(reading.fault.why)
        return reading.fault

    def _cut_all(self, why: str) -> None:
        """End every answer under way, with EngineLost."""
        for call in self._calls:
            self._cut[call] = why
            call.cancel()

    def _check_open(self) -> None:
        if self._closed:
            raise EngineRefused(f"the connection to Triton at {self._where} was closed")


def _name(code: "grpc.StatusCode | None") -> str:
    return "" if code is None or code is grpc.StatusCode.OK else code.name
