"""holdfast replica as a process: its doors, its health, how it leaves and how it fails."""

import asyncio
import json
import shutil
import signal
import tempfile
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families
from replica_process import ReplicaProcess

from holdfast.domain.fault import EngineLost, EngineRefused
from holdfast.domain.replica import StartFault
from holdfast.domain.request import Chunk, Finish, Generation
from holdfast.engine.embedded import EmbeddedEngine, dial
from holdfast.host.clock import MonotonicClock

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
PACED = ("--engine", "scripted", "--token-ms", "2", "--listen", "127.0.0.1:0", "--health", "127.0.0.1:0")
ASKED = Generation(id="g", prompt_ids=[20, 21, 22], max_tokens=400)
Start = Callable[..., ReplicaProcess]


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="hf"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts replicas, and ends whatever of them is left after the test."""
    running: list[ReplicaProcess] = []

    def start_one(*options: str, env: dict[str, str] | None = None) -> ReplicaProcess:
        running.append(ReplicaProcess(folder, *options, env=env))
        return running[-1]

    yield start_one
    for process in running:
        process.end()


@asynccontextmanager
async def answering(listen: str) -> AsyncIterator[tuple[EmbeddedEngine, list[int], AsyncIterator[Chunk]]]:
    """A line on which an answer has begun: the line, what came so far, and the rest."""
    line = await dial(listen, MonotonicClock(), 10.0)
    try:
        async with aclosing(line.generate(ASKED)) as chunks:
            yield line, list((await anext(chunks)).ids), chunks
    finally:
        await line.close()


def health_of(process_says: dict[str, str]) -> health_pb2_grpc.HealthStub:
    return health_pb2_grpc.HealthStub(grpc.insecure_channel(process_says["health"]))


def play(story: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await story()

    asyncio.run(run())


def test_the_run_file_tells_a_supervisor_who_it_is(start: Start, folder: Path) -> None:
    run_file = folder / "replica-0.json"
    env = {"HOLDFAST_RUN_FILE": str(run_file), "HOLDFAST_TOKEN": "t0k"}
    process = start(*PACED, "--name", "replica-0", env=env)
    said = process.ready()
    told = json.loads(run_file.read_bytes())
    stat = Path(f"/proc/{process.popen.pid}/stat").read_text()
    assert told == {
        "name": "replica-0",
        "pid": process.popen.pid,
        "start_ticks": int(stat.rpartition(")")[2].split()[19]),
        "token": "t0k",
        "boot": told["boot"],
        "listen": said["listen"],
        "health": said["health"],
        "box": "",
        "pulse": "",
        "stage": "",
        "engine": "",
        "device": "",
        "away": False,
        "ready": True,
    }
    assert [path.name for path in folder.iterdir() if "replica-0" in path.name] == ["replica-0.json"]

    async def story() -> None:
        line = await dial(said["listen"], MonotonicClock(), 10.0)
        assert (line.boot, line.welcome.pid) == (told["boot"], told["pid"])
        await line.close()

    play(story)


def test_metrics_and_health_over_http(start: Start) -> None:
    said = start(*PACED, "--name", "replica-7").ready()
    with urllib.request.urlopen(f"http://{said['listen']}/metrics") as page:
        assert page.headers["Content-Type"].startswith("text/plain")
        families = {family.name: family for family in text_string_to_metric_families(page.read().decode())}
    assert families["holdfast_replica_up"].samples[0].value == 1
    assert families["holdfast_replica_info"].samples[0].labels["replica"] == "replica-7"
    assert families["holdfast_replica_steps"].type == "counter"
    with urllib.request.urlopen(f"http://{said['listen']}/health") as page:
        assert json.loads(page.read())["ready"] is True


def test_health_turns_when_it_drains_and_the_answer_goes_on_to_its_end(start: Start) -> None:
    process = start(*PACED, "--name", "replica-0", "--serve-as", "pearl")
    said = process.ready()
    stub = health_of(said)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="pearl"))
    assert next(watch).status == SERVING
    for service in ("", "pearl", "replica-0"):
        assert stub.Check(health_pb2.HealthCheckRequest(service=service)).status == SERVING
    with pytest.raises(grpc.RpcError) as told:
        stub.Check(health_pb2.HealthCheckRequest(service="somebody else"))
    assert told.value.code() is grpc.StatusCode.NOT_FOUND

    async def story() -> None:
        async with answering(said["listen"]) as (line, ids, rest):
            process.send(signal.SIGTERM)
            assert (await asyncio.to_thread(next, watch)).status == NOT_SERVING
            with pytest.raises(urllib.error.HTTPError, match="503"):
                await asyncio.to_thread(urllib.request.urlopen, f"http://{said['listen']}/health")
            assert line.last_load.draining
            with pytest.raises(EngineRefused, match="draining"):
                await anext(line.generate(ASKED))
            chunks = [chunk async for chunk in rest]
            assert chunks[-1].finish is Finish.LENGTH
            assert len(ids) + sum(len(chunk.ids) for chunk in chunks) == ASKED.max_tokens

    play(story)
    assert process.wait() == 0
    assert "Traceback" not in process.stderr


def test_a_drain_ends_when_its_time_is_over(start: Start) -> None:
    process = start(*PACED, "--drain-s", "0.05", "--mishap", "freeze:3")
    said = process.ready()

    async def story() -> None:
        async with answering(said["listen"]) as (_, _, rest):
            process.send(signal.SIGTERM)
            with pytest.raises(EngineLost, match="its drain time is over"):
                async for _ in rest:
                    pass

    play(story)
    assert process.wait() == 0


def test_a_second_signal_ends_the_drain_at_once(start: Start) -> None:
    process = start(*PACED, "--drain-s", "3600", "--mishap", "freeze:3")
    said = process.ready()

    async def story() -> None:
        async with answering(said["listen"]) as (line, _, rest):
            process.send(signal.SIGINT)
            while not line.last_load.draining:
                await line.probe()
            process.send(signal.SIGTERM)
            with pytest.raises(EngineLost, match="its drain time is over"):
                async for _ in rest:
                    pass

    play(story)
    assert process.wait() == 0


def test_a_killed_replica_is_a_lost_engine(start: Start) -> None:
    process = start(*PACED)
    said = process.ready()

    async def story() -> None:
        async with answering(said["listen"]) as (line, _, rest):
            process.send(signal.SIGKILL)
            with pytest.raises(EngineLost, match="connection"):
                async for _ in rest:
                    pass
            await line.closed.wait()

    play(story)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("kind", ["freeze", "hang"])
def test_an_engine_that_stands_still_is_not_serving_whatever_its_loop_does(start: Start, kind: str) -> None:
    process = start(*PACED, "--still-s", "2", "--mishap", f"{kind}:3")
    said = process.ready()
    watch = health_of(said).Watch(health_pb2.HealthCheckRequest())
    assert next(watch).status == SERVING

    async def story() -> None:
        async with answering(said["listen"]):
            assert (await asyncio.to_thread(next, watch)).status == NOT_SERVING

    play(story)


def test_a_poisonous_prompt_kills_the_process_and_loses_its_answers(start: Start) -> None:
    process = start(*PACED, "--poison", "66:raise")
    said = process.ready()

    async def story() -> None:
        async with answering(said["listen"]) as (line, _, rest):
            with pytest.raises(EngineLost):
                await anext(line.generate(Generation(id="p", prompt_ids=[20, 66])))
            with pytest.raises(EngineLost):
                async for _ in rest:
                    pass

    play(story)
    assert process.wait() == 1
    assert "Poisoned in take_effect" in process.stderr
    assert "66" not in process.stderr.rpartition("Poisoned")[2]


def test_a_socket_in_use_is_refused_and_a_stale_one_replaced(start: Start, folder: Path) -> None:
    options = ("--engine", "scripted", "--listen", f"unix:{folder}/r.sock")
    first = start(*options)
    first.ready()
    second = start(*options)
    assert second.wait() == StartFault.ADDRESS
    assert f"address in use by process {first.popen.pid}" in second.stderr
    first.send(signal.SIGKILL)
    first.wait()
    assert start(*options).ready()["listen"] == f"unix:{folder}/r.sock"


@pytest.mark.parametrize(
    ("options", "code", "why"),
    [
        (("--model", "/nowhere/at/all"), StartFault.MODEL, "/nowhere/at/all is not a folder"),
        (("--model", "{folder}/empty"), StartFault.MODEL, "config.json is missing"),
        ((), StartFault.SETTINGS, "--model is missing"),
        (("--engine", "scripted", "--model", "{folder}/empty"), StartFault.MODEL, "tokenizer.json"),
        (("--engine", "scripted", "--health", "nonsense"), StartFault.SETTINGS, "'nonsense' is not an address"),
    ],
    ids=["no folder", "empty folder", "no model", "no tokenizer", "no address"],
)
def test_what_can_not_start_says_why_in_one_sentence(
    start: Start, folder: Path, options: tuple[str, ...], code: StartFault, why: str
) -> None:
    (folder / "empty").mkdir()
    filled = (option.format(folder=folder) for option in options)
    process = start("--listen", f"unix:{folder}/r.sock", *filled)
    assert process.wait() == code
    assert why in process.stderr
    assert process.stderr.startswith("holdfast replica: ")
    assert process.stderr.count("\n") == 1
