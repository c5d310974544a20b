"""vLLM's adapter before a real vLLM (its CPU build) that serves the shipped model: the contract, freezes, and deaths.

One server for all of them, since it takes 30 to 60 s to start; the last story kills it.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from msgspec import structs
from vllm_process import CLOCK, SHIPPED, VllmProcess, vllm_python

from holdfast.dialect.open import open_dialect
from holdfast.domain.dialect import Form, Tool
from holdfast.domain.engine import Ability
from holdfast.domain.fault import BadRequest, EngineLost, EngineRefused
from holdfast.domain.ports import Work
from holdfast.domain.release import Exactness
from holdfast.domain.request import Generation, Sampling
from holdfast.engine import exposition
from holdfast.engine.http import HttpDoor
from holdfast.engine.serving import Serving
from holdfast.engine.vllm import VllmEngine
from holdfast.host import sessions
from holdfast.pearl.open import open_core
from holdfast.pearl.options import CoreOptions
from holdfast.testing.engine_contract import ForeignContract, Heard, Mishap, Stage, listen_to

pytestmark = [
    pytest.mark.skipif(vllm_python() is None, reason="no vLLM here: `make engines` installs its CPU build"),
    pytest.mark.timeout(360),
]
SLOTS, QUEUE, CONTEXT, VOCAB = 4, 2, 1024, 1280
SERVING = Serving(model="pearl", digest="d" * 64, vocab_size=VOCAB, slots=SLOTS, answer_s=5.0)
PATIENT = structs.replace(SERVING, answer_s=60.0)  # where no story is about a server that does not answer
CASES, TOKENS = 16, 24
UNBENT = Sampling(temperature=0, ignore_eos=True)


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmProcess]:
    words = ("--max-model-len", str(CONTEXT), "--max-num-seqs", str(SLOTS))
    queue = ("--max-num-queued-reqs", str(SLOTS + QUEUE))  # it counts those that run, too
    process = VllmProcess(tmp_path_factory.mktemp("vllm"), *words, *queue, key="k-1")
    try:
        asyncio.run(process.ready())
        yield process
    finally:
        process.end()


@dataclass
class VllmScene:
    engine: VllmEngine
    process: VllmProcess
    aside: HttpDoor

    async def befall(self, mishap: Mishap, after_tokens: int = 0) -> None:
        if mishap is Mishap.FROZEN:
            os.kill(self.process.core(), signal.SIGSTOP)
        else:
            self.process.send_all(signal.SIGSTOP)

    async def relent(self) -> None:
        self.process.send_all(signal.SIGCONT)

    async def working(self) -> int:
        """As its scheduler has it."""
        told = exposition.parse((await self.aside.ask("GET", "/metrics", None, 60.0)).body)
        return int(told["vllm:num_requests_running"] + told["vllm:num_requests_waiting"])


class VllmStage(Stage):
    vocab_size, context, slots, queue = VOCAB, CONTEXT, SLOTS, QUEUE
    exactness = Exactness.GREEDY
    abilities = frozenset(
        (Ability.IDS_IN, Ability.IDS_OUT, Ability.LOGPROBS, Ability.SEED, Ability.GRAMMAR, Ability.COUNTERS)
    )
    mishaps = frozenset((Mishap.FROZEN, Mishap.SILENT))
    long_tokens = 700
    patience_s = 240.0

    def __init__(self, process: VllmProcess) -> None:
        self._process = process

    def play(self, story: Callable[[Any], Awaitable[None]]) -> None:
        async def run() -> None:
            doors = [HttpDoor(self._process.url, CLOCK, self._process.key) for _ in range(2)]
            engine = VllmEngine(doors[0], SERVING)
            try:
                await engine.learn()
                await story(VllmScene(engine, self._process, doors[1]))
            finally:
                self._process.send_all(signal.SIGCONT)
                await engine.close()
                await doors[1].close()

        asyncio.run(run())


class TestRealVllm(ForeignContract):
    @pytest.fixture
    def stage(self, vllm: VllmProcess) -> Stage:
        return VllmStage(vllm)


def with_engine(vllm: VllmProcess, story: Callable[[VllmEngine], Awaitable[None]]) -> None:
    async def run() -> None:
        engine = VllmEngine(HttpDoor(vllm.url, CLOCK, vllm.key), PATIENT)
        try:
            await engine.learn()
            await story(engine)
        finally:
            await engine.close()

    asyncio.run(run())


def asked_of(prompt_ids: list[int], tokens: int = TOKENS) -> Generation:
    return Generation(id="g", prompt_ids=prompt_ids, sampling=Sampling(temperature=0), max_tokens=tokens, stop_ids=(1,))


def unending(prompt_ids: list[int]) -> Generation:
    return Generation(id="u", prompt_ids=prompt_ids, sampling=UNBENT, max_tokens=CONTEXT - 20)


def test_its_greedy_tokens_are_the_embedded_engine_s(vllm: VllmProcess) -> None:
    lines = (SHIPPED / "reference.jsonl").read_bytes().splitlines()[:CASES]
    prompts = [msgspec.json.decode(line)["prompt_ids"] for line in lines]
    core = open_core(SHIPPED, CoreOptions(slots=4, context_tokens_max=CONTEXT))
    ours: list[list[int]] = []
    for ticket, prompt_ids in enumerate(prompts):
        asked = asked_of(prompt_ids)
        core.submit(ticket, Work(prompt_ids=prompt_ids, delivered_ids=[], sampling=asked.sampling, max_tokens=TOKENS,
                                 seed=0, stop_ids=(1,)))  # fmt: skip
        ours.append([])
        over = False
        while not over:
            for made in core.step():
                ours[ticket] += made.ids
                over = made.finish is not None

    async def story(engine: VllmEngine) -> None:
        theirs = [(await listen_to(engine, asked_of(prompt_ids))).ids for prompt_ids in prompts]
        assert theirs == ours
        assert sum(map(len, ours)) > CASES

    with_engine(vllm, story)


def test_a_frequency_penalty_is_made_up_for_after_a_cut(vllm: VllmProcess) -> None:
    """It counts what it made itself alone; the bias that we send for the rest gives the same greedy tokens."""
    sampling = Sampling(temperature=0, ignore_eos=True, frequency_penalty=1.5)
    asked = [structs.replace(unending([5, 6, n]), sampling=sampling, max_tokens=40) for n in range(20, 28)]

    async def story(engine: VllmEngine) -> None:
        bent = 0
        for one in asked:
            whole = (await listen_to(engine, one)).ids
            rest = await listen_to(engine, structs.replace(one, delivered_ids=whole[:20]))
            assert rest.ids == whole[20:]
            unbent = await listen_to(engine, structs.replace(one, sampling=UNBENT, delivered_ids=whole[:20]))
            bent += rest.ids != unbent.ids
        assert bent > len(asked) // 2, "it would have been the same without"

    with_engine(vllm, story)


async def goes_on(engine: VllmEngine, asked: Generation, whole: Heard) -> None:
    """Cut here and there, it is made again and goes on token for token, drawn ones too; what it would not say is lost."""
    ids = whole.ids
    for cut in {1, len(ids) // 3, len(ids) // 2, len(ids) - 1, len(ids)}:
        rest = await listen_to(engine, structs.replace(asked, delivered_ids=ids[:cut]))
        assert (rest.ids, rest.finish) == (ids[cut:], whole.finish), f"cut after {cut} of {len(ids)}"
    with pytest.raises(EngineLost, match=f"departs at token {len(ids)} from the {len(ids)} that were delivered"):
        await listen_to(engine, structs.replace(asked, delivered_ids=[*ids[:-1], ids[-1] - 1]))


def test_it_holds_answers_to_our_grammars_and_makes_them_again(vllm: VllmProcess) -> None:
    """As the door writes them: marks by id, JSON by its schema, reasoning free before it."""
    dialect = open_dialect(SHIPPED)
    asked = dialect.encode("Make a JSON object with name Ann and age 12.")
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 150}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    tool = Tool(name="weather", parameters={**schema, "properties": {"name": {"enum": ["Rome"]}, "age": {"const": 7}}})

    async def story(engine: VllmEngine) -> None:
        for mark in (4, 6), (4, 5):  # without reasoning, and with it
            prompt_ids = [0, 3, *asked, *mark]
            for temperature in (0.0, 1.0):
                sampling = Sampling(temperature=temperature, grammar=dialect.grammar(prompt_ids, Form(schema=schema)))
                one = structs.replace(asked_of(prompt_ids, 120), sampling=sampling, seed=11)
                heard = await listen_to(engine, one)
                parser = dialect.parser(prompt_ids)
                said = parser.feed(heard.ids).content + parser.end().content
                jsonschema.validate(json.loads(said), schema)
                await goes_on(engine, one, heard)
        prompt_ids = [0, 3, *asked, 4, 6]
        sampling = Sampling(temperature=0, grammar=dialect.grammar(prompt_ids, Form(tools=(tool,), many=False)))
        heard = await listen_to(engine, structs.replace(asked_of(prompt_ids, 120), sampling=sampling))
        assert b"weather" in b"".join(dialect.bytes_of(id) for id in heard.ids)
        wrong = structs.replace(asked_of(prompt_ids), sampling=Sampling(temperature=0, grammar="start: }{"))
        with pytest.raises(BadRequest, match="Grammar error"):
            await listen_to(engine, wrong)

    with_engine(vllm, story)


def test_a_wrong_key_opens_nothing(vllm: VllmProcess) -> None:
    async def run() -> None:
        engine = VllmEngine(HttpDoor(vllm.url, CLOCK, "wrong"), SERVING)
        with pytest.raises(EngineLost, match="answered 401"):
            await engine.learn()
        await engine.close()

    asyncio.run(run())


async def working(engine: VllmEngine, requests: int) -> None:
    while (await engine.probe()).load.running < requests:
        await CLOCK.sleep(0.01)


def test_a_frozen_core_is_told_by_counters_alone(vllm: VllmProcess) -> None:
    """Its own /health stays green while the process that computes stands still; ours goes by the step."""

    async def story(engine: VllmEngine) -> None:
        door = HttpDoor(vllm.url, CLOCK)
        reading = asyncio.ensure_future(listen_to(engine, unending([5, 6, 7])))
        await working(engine, 1)
        os.kill(vllm.core(), signal.SIGSTOP)
        try:
            await engine.probe()  # what was under way when it stopped
            looks = []
            for _ in range(10):
                await CLOCK.sleep(0.1)
                looks.append(((await door.ask("GET", "/health", None, 60.0)).status, (await engine.probe()).load.step))
            assert {status for status, _ in looks} == {200}
            assert len({step for _, step in looks}) == 1
            assert not reading.done()
        finally:
            os.kill(vllm.core(), signal.SIGCONT)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await door.close()

    with_engine(vllm, story)


def test_the_death_of_its_core_loses_every_stream_and_is_told_as_a_death(vllm: VllmProcess) -> None:
    """The last one: it ends the server. Behind the error vLLM says `[DONE]`, as after a whole answer.

    Its resource tracker is killed too: what it has in shared memory is then removed by the guard that a replica sets on it.
    """
    everybody = sessions.members(vllm.popen.pid, "")
    shared = sessions.shared_by(everybody)
    assert sum(file.name.startswith("psm_") for file in shared) >= 2
    words = [sys.executable, "-I", "-S", sessions.__file__, str(vllm.popen.pid), ""]
    guard = subprocess.Popen(words, stdin=subprocess.PIPE)
    guard.stdin.write(b"".join(file.line() for file in shared))
    guard.stdin.flush()
    sessions.kill(one for one in everybody if any("resource_tracker" in word for word in sessions.words(one.pid)))

    async def story(engine: VllmEngine) -> None:
        readings = [asyncio.ensure_future(listen_to(engine, unending([5, 6, n]))) for n in range(8, 8 + SLOTS)]
        await working(engine, SLOTS)
        os.kill(vllm.core(), signal.SIGKILL)
        outcomes = await asyncio.gather(*readings, return_exceptions=True)
        assert [type(one) for one in outcomes] == [EngineLost] * SLOTS, outcomes
        assert all(isinstance(one, EngineLost) and one.died for one in outcomes), outcomes
        with pytest.raises(EngineLost):  # green for another moment, then 503, then the door is shut
            while True:
                await engine.probe()
        with pytest.raises((EngineLost, EngineRefused)):
            await listen_to(engine, asked_of([5, 6, 7]))

    with_engine(vllm, story)
    guard.stdin.close()
    guard.wait(60)
    assert not [file for file in shared if Path("/dev/shm", file.name).exists()]
