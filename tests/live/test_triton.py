"""A real Triton Inference Server (the one inside nvidia-pytriton) with the shipped model in its Python backend: the contract, the
same tokens as the embedded engine's, and what happens when its parts die. What it did each time is printed."""

import asyncio
import json
import os
import shutil
import signal
import tempfile
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import pytest
import triton_process
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from msgspec import structs
from triton_process import CLOCK, KEY, SHIPPED, TritonProcess

from holdfast.domain.engine import Ability
from holdfast.domain.fault import EngineLost, EngineRefused
from holdfast.domain.kserve import (
    CODEC,
    SERVICE,
    InferRequest,
    InferResponse,
    Named,
    Statistics,
    Tensor,
    numbers,
    packed,
    texts,
)
from holdfast.domain.ports import Work
from holdfast.domain.release import Exactness
from holdfast.domain.request import Generation, Sampling
from holdfast.domain.triton import OUTPUT_LEN, STREAM, UNARY
from holdfast.engine.triton import KEY_HEADER, TritonEngine, TritonSettings
from holdfast.host.triton_stubs import end_stubs, stubs_of
from holdfast.pearl.batch import BatchCore
from holdfast.pearl.open import open_core
from holdfast.pearl.options import CoreOptions
from holdfast.testing.engine_contract import ForeignContract, Heard, Mishap, PlainScene, Stage, listen_to

pytestmark = pytest.mark.skipif(bool(triton_process.absent()), reason=triton_process.absent())
HARD = Sampling(
    temperature=0.9, top_p=0.9, top_k=40, min_p=0.01, presence_penalty=0.4, frequency_penalty=0.2, ignore_eos=True
)
ASKED = [
    Generation(
        id="greedy", prompt_ids=[21, 34, 55, 89], sampling=Sampling(temperature=0.0, ignore_eos=True), max_tokens=40
    ),
    Generation(
        id="sampled", prompt_ids=list(range(40, 90)), sampling=Sampling(ignore_eos=True), max_tokens=40, seed=-7
    ),
    Generation(id="hard", prompt_ids=[100, 200, 300], sampling=HARD, max_tokens=40, seed=2**63 + 5),
    Generation(
        id="biased",
        prompt_ids=[9, 8, 7],
        sampling=structs.replace(HARD, logit_bias=((50, 9.5),)),
        max_tokens=40,
        seed=3,
    ),
]


@pytest.fixture(scope="module")
def shared() -> Iterator[list[TritonProcess]]:
    """The Triton of this module, and those before it that died."""
    processes: list[TritonProcess] = []
    yield processes
    for process in processes:
        process.end()
        shutil.rmtree(process.folder)


@pytest.fixture
def triton(shared: list[TritonProcess]) -> TritonProcess:
    """One that runs, whatever became of the one before."""
    if not shared or shared[-1].popen.poll() is not None:
        shared.append(TritonProcess(Path(tempfile.mkdtemp(prefix="hf")), unary_batch=8))
        uvloop.run(shared[-1].until_ready())
    return shared[-1]


@contextmanager
def running() -> Iterator[TritonProcess]:
    process = TritonProcess(Path(tempfile.mkdtemp(prefix="hf")))
    try:
        uvloop.run(process.until_ready())
        yield process
    finally:
        process.end()
        shutil.rmtree(process.folder)


@pytest.fixture
def another() -> Iterator[TritonProcess]:
    with running() as process:
        yield process


@asynccontextmanager
async def engine_of(process: TritonProcess) -> Any:
    engine = process.engine()
    try:
        await engine.learn()
        yield engine
    finally:
        await engine.close()


class RealScene(PlainScene):
    """Its server can be stopped and go on."""

    def __init__(self, engine: TritonEngine, process: TritonProcess) -> None:
        super().__init__(engine)
        self.process = process

    async def befall(self, mishap: Mishap, after_tokens: int = 0) -> None:
        assert mishap is Mishap.SILENT
        self.process.popen.send_signal(signal.SIGSTOP)

    async def relent(self) -> None:
        self.process.popen.send_signal(signal.SIGCONT)


class RealStage(Stage):
    vocab_size, context, slots, queue, long_tokens = 1280, 512, 4, 2, 400
    plain_ids = tuple(range(980, 1180))  # greedy answers to these hold no end-of-answer id, which may be ignored
    exactness = Exactness.EXACT
    abilities = frozenset(set(Ability) - {Ability.PRIORITY})
    mishaps = frozenset((Mishap.SILENT,))

    def __init__(self, process: TritonProcess) -> None:
        self._process = process

    def play(self, story: Callable[[Any], Awaitable[None]]) -> None:
        async def run() -> None:
            async with engine_of(self._process) as engine:
                await story(RealScene(engine, self._process))

        uvloop.run(run())


class TestRealTriton(ForeignContract):
    @pytest.fixture
    def stage(self, triton: TritonProcess) -> RealStage:
        return RealStage(triton)


@cache
def embedded_core() -> BatchCore:
    return open_core(SHIPPED, CoreOptions(slots=4, context_tokens_max=512, queue_max=2, model="pearl"))


def embedded(asked: Generation) -> list[int]:
    """What the embedded engine answers."""
    core = embedded_core()
    core.submit(
        1,
        Work(
            prompt_ids=asked.prompt_ids,
            delivered_ids=asked.delivered_ids,
            sampling=asked.sampling,
            max_tokens=asked.max_tokens,
            seed=asked.seed,
            stop_ids=asked.stop_ids,
        ),
    )
    ids: list[int] = []
    finish = None
    while finish is None:
        for produced in core.step():
            ids += produced.ids
            finish = produced.finish
    return ids


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: str(asked.id))
def test_its_tokens_are_the_embedded_engines_and_go_on_exactly(triton: TritonProcess, asked: Generation) -> None:
    whole = embedded(asked)

    async def run() -> None:
        async with engine_of(triton) as engine:
            assert (await listen_to(engine, asked)).ids == whole
            for k in (0, 1, 13, 39):
                heard = await listen_to(engine, structs.replace(asked, delivered_ids=whole[:k]))
                assert heard.ids == whole[k:], f"continued after token {k}"

    uvloop.run(run())


def test_its_release_is_the_embedded_engines(triton: TritonProcess) -> None:

    async def run() -> None:
        async with engine_of(triton) as engine:
            release = engine.describe()
            assert release is not None
            assert structs.replace(release, engine="embedded") == embedded_core().release()
            assert release.engine == "triton"

    uvloop.run(run())


async def unary(channel: Any, prompt_ids: list[int]) -> tuple[list[int], str]:
    """One answer of eight greedy tokens from the unary variant, in one response."""
    request = InferRequest(UNARY)
    for name, datatype, values in (
        ("input_ids", "INT32", prompt_ids),
        ("request_output_len", "INT32", [8]),
        ("temperature", "FP64", [0.0]),
        ("ignore_eos", "BOOL", [True]),
    ):
        request.inputs.append(Tensor(name, datatype, [1, len(values)]))
        request.raw.append(packed(datatype, values))
    call = channel.unary_unary(f"/{SERVICE}/ModelInfer")
    raw = await call(CODEC.encode(request), timeout=30, metadata=((KEY_HEADER, KEY),))
    response = CODEC.decode(InferResponse, raw)
    found = dict(zip((one.name for one in response.outputs), response.raw, strict=True))
    return [int(id) for id in numbers("INT32", found["output_ids"])], texts(found["finish"])[0]


def test_the_unary_variant_gathers_requests_for_fifteen_milliseconds(triton: TritonProcess) -> None:
    prompts = [[30 + n] * (3 + n) for n in range(8)]
    greedy = Sampling(temperature=0.0, ignore_eos=True)
    alone = [embedded(Generation(id="u", prompt_ids=ids, sampling=greedy, max_tokens=8)) for ids in prompts]

    async def run() -> None:
        async with grpc.aio.insecure_channel(triton.url.removeprefix("grpc://")) as channel:

            async def batches() -> dict[int, int]:
                call = channel.unary_unary(f"/{SERVICE}/ModelStatistics")
                raw = await call(CODEC.encode(Named(UNARY)), metadata=((KEY_HEADER, KEY),))
                stats = CODEC.decode(Statistics, raw).model_stats[0]
                return {one.batch_size: one.compute_infer.count for one in stats.batch_stats}

            assert await unary(channel, prompts[0]) == (alone[0], "length")
            before = await batches()
            answers = await asyncio.gather(*(unary(channel, ids) for ids in prompts))
            assert [ids for ids, _ in answers] == alone
            after = await batches()
            new = {size: count - before.get(size, 0) for size, count in after.items() if count > before.get(size, 0)}
            print(f"8 requests at once: batches {new}")
            assert sum(size * count for size, count in new.items()) == 8
            assert max(new) >= 4, "they came within the window and were not gathered"

    uvloop.run(run())


def test_what_it_was_started_with(triton: TritonProcess) -> None:
    paths = json.loads((triton.folder / "models/holdfast/paths.json").read_text())
    assert all(Path(path).is_dir() for path in paths)
    assert "default_queue_policy" not in (triton.folder / "models/holdfast_unary/config.pbtxt").read_text()


async def green(process: TritonProcess) -> dict[str, str]:
    """Every health endpoint that it has."""

    def over_http(path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{process.http_port}{path}", timeout=2) as answer:
            return str(answer.status)

    paths = ("/v2/health/live", "/v2/health/ready", "/v2/models/holdfast/ready")
    told = {path: await asyncio.to_thread(over_http, path) for path in paths}
    async with grpc.aio.insecure_channel(process.url.removeprefix("grpc://")) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        told["grpc.health.v1"] = "200" if answer.status == health_pb2.HealthCheckResponse.SERVING else "not serving"
    return told


async def lose_the_stub(triton: TritonProcess, number: signal.Signals) -> None:
    """Three answers are under way when the stub is lost. EngineLost from the probes where Triton itself is lost with it."""
    asked = [structs.replace(ASKED[2], id=str(n), seed=n, max_tokens=200) for n in range(3)]
    async with engine_of(triton) as engine:
        heard = [Heard() for _ in asked]
        reading = [asyncio.ensure_future(listen_to(engine, a, h)) for a, h in zip(asked, heard, strict=True)]
        while not all(len(one.ids) > 10 for one in heard):
            await CLOCK.sleep(0.005)
        stub, at, frozen = triton.stub(), CLOCK.now(), number is signal.SIGSTOP
        os.kill(stub, number)
        try:
            probe = await engine.probe()
            found_s = CLOCK.now() - at
            assert not probe.ready
            assert "dead or frozen" in probe.why
            assert set((await green(triton)).values()) == {"200"}, "Triton calls itself healthy all the while"
        finally:
            outcomes = await asyncio.gather(*reading, return_exceptions=True)
            assert all(isinstance(outcome, EngineLost) for outcome in outcomes)
        lost_s = CLOCK.now() - at
        killed = end_stubs(triton.popen.pid, STREAM)
        assert killed == ("1 processes of holdfast were killed" if frozen else "no process of holdfast was left")
        told = await engine.repair()
        print(f"{number.name}: found in {found_s:.2f} s, streams ended after {lost_s:.2f} s; {told}")
        assert (await engine.probe()).ready
        assert len(stubs_of(triton.popen.pid, STREAM)) == 1, "the old process keeps its memory"
        for a, h in zip(asked, heard, strict=True):
            rest = await listen_to(engine, structs.replace(a, delivered_ids=h.ids))
            assert h.ids + rest.ids == embedded(a), "the answer goes on in the new process as if nothing had been"
        assert triton.popen.poll() is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_a_stub_that_is_gone_is_found_under_green_health_and_repaired(number: signal.Signals) -> None:
    """Now and then Triton 2.51 aborts when it loses a stub that was answering: told like any death. Then another is asked."""
    for _ in range(4):
        with running() as triton:
            try:
                return uvloop.run(lose_the_stub(triton, number))
            except (EngineLost, OSError) as lost:
                print(f"with its stub Triton itself was lost: rc {triton.popen.wait(10)}; {lost}")
                assert triton.popen.returncode == -signal.SIGABRT
    pytest.skip("each of four Tritons aborted when it lost its stub; no answer has suffered")


def test_a_stranger_can_look_at_its_health_and_nothing_else(triton: TritonProcess) -> None:
    async def run() -> None:
        stranger = TritonEngine(triton.url, CLOCK, TritonSettings(), "guessed")
        with pytest.raises(EngineLost, match="This protocol is restricted"):
            await stranger.learn()
        with pytest.raises(EngineLost, match="This protocol is restricted"):
            await stranger.repair()
        await stranger.close()
        unload = f"http://127.0.0.1:{triton.http_port}/v2/repository/models/holdfast/unload"
        with pytest.raises(urllib.error.HTTPError, match="403"):
            await asyncio.to_thread(
                urllib.request.urlopen, urllib.request.Request(unload, method="POST", data=b"{}"), None, 5
            )
        assert set((await green(triton)).values()) == {"200"}

    uvloop.run(run())


def test_without_a_repair_the_whole_server_dies_once_a_frozen_stub_thaws(triton: TritonProcess) -> None:
    """Why a frozen stub is not waited for."""

    async def run() -> None:
        async with engine_of(triton) as engine:
            stub = triton.stub()
            os.kill(stub, signal.SIGSTOP)
            assert not (await engine.probe()).ready
            os.kill(stub, signal.SIGCONT)
            outcomes = []
            while triton.popen.poll() is None and len(outcomes) < 20:
                try:
                    outcomes.append(str(await engine.probe()))
                except EngineLost as lost:
                    outcomes.append(lost.why)
                await CLOCK.sleep(0.05)
            print(f"after the thaw: rc {triton.popen.poll()}; {outcomes[-1]}")
            assert triton.popen.poll() == -signal.SIGABRT, "this Triton survives a thaw: say so in docs/engines.md"
            with pytest.raises(EngineLost):
                await engine.probe()
            with pytest.raises(EngineRefused):
                await listen_to(engine, ASKED[0])

    uvloop.run(run())


def test_a_draining_server_refuses_new_answers_and_its_death_is_told_at_once(another: TritonProcess) -> None:
    asked = structs.replace(ASKED[0], max_tokens=500)

    async def run() -> None:
        async with engine_of(another) as engine:
            warm = (await engine.probe()).load.step
            assert warm == OUTPUT_LEN, "its warm-up is one answer of the usual length, before it was ready"
            heard = Heard()
            reading = asyncio.ensure_future(listen_to(engine, asked, heard))
            while len(heard.ids) < 5:
                await CLOCK.sleep(0.002)
            another.popen.send_signal(signal.SIGTERM)
            refused = ""
            while not refused and not reading.done():
                try:
                    await listen_to(engine, structs.replace(ASKED[0], id="new", max_tokens=1))
                except EngineRefused as fault:
                    refused = fault.why
            print(f"while draining: {refused or 'the stream ended before a refusal'}")
            assert "no available versions" in refused
            assert not reading.done(), "open streams run on while it drains"
            at = CLOCK.now()
            another.popen.kill()
            with pytest.raises(EngineLost) as lost:
                await reading
            print(f"SIGKILL: told after {1000 * (CLOCK.now() - at):.0f} ms: {lost.value.why}")
            assert CLOCK.now() - at < 2
            assert heard.ids == embedded(asked)[: len(heard.ids)]
            with pytest.raises(EngineLost):
                await engine.probe()

    uvloop.run(run())
