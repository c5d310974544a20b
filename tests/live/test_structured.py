"""Answers under a grammar over the wire, and through the death of the replica that began them."""

import asyncio
import json
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import jsonschema
import pytest
from msgspec import structs
from replica_process import ReplicaProcess

from holdfast.dialect.open import open_dialect
from holdfast.domain.dialect import Form, Message, Tool
from holdfast.domain.fault import BadRequest, EngineLost
from holdfast.domain.request import Finish, Generation, Sampling
from holdfast.engine.embedded import dial
from holdfast.host.clock import MonotonicClock

SHIPPED = Path(__file__).parents[2] / "src" / "holdfast" / "shipped" / "pearl"
DIALECT = open_dialect(SHIPPED)
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "friends": {"type": "array", "items": {"type": "string", "maxLength": 8}, "minItems": 2, "maxItems": 5},
    },
    "required": ["name", "age", "friends"],
    "additionalProperties": False,
}
TIMER = Tool("set_timer", "Starts a timer", {"type": "object", "properties": {"minutes": {"type": "integer"}}})
Start = Callable[[], ReplicaProcess]


def asked(text: str, form: Form, temperature: float, seed: int) -> Generation:
    prompt = DIALECT.render([Message("user", text)], list(form.tools), False, form.schema is not None)
    sampling = Sampling(temperature=temperature, grammar=DIALECT.grammar(prompt, form))
    stops = DIALECT.stop_ids
    return Generation(id="g", prompt_ids=prompt, sampling=sampling, max_tokens=150, seed=seed, stop_ids=stops)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts replicas of the shipped model, and ends whatever of them is left after the test."""
    running: list[ReplicaProcess] = []
    folder = Path(tempfile.mkdtemp(prefix="hf"))

    def start_one() -> ReplicaProcess:
        running.append(ReplicaProcess(folder, "--model", str(SHIPPED), "--listen", "127.0.0.1:0", "--slots", "4"))
        return running[-1]

    yield start_one
    for process in running:
        process.end()
    shutil.rmtree(folder)


async def told(listen: str, generation: Generation) -> AsyncIterator[tuple[list[int], Finish | None]]:
    """What a replica makes of it, chunk by chunk."""
    line = await dial(listen, MonotonicClock(), 10.0)
    try:
        async with aclosing(line.generate(generation)) as chunks:
            async for chunk in chunks:
                yield chunk.ids, chunk.finish
    finally:
        await line.close()


async def whole(listen: str, generation: Generation) -> tuple[list[int], Finish | None]:
    ids, last = list[int](), None
    async with aclosing(told(listen, generation)) as pieces:
        async for new, finish in pieces:
            ids += new
            last = finish
    return ids, last


def play(story: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await story()

    asyncio.run(run())


@pytest.mark.parametrize(("temperature", "seed"), [(0.0, 1), (1.0, 2), (1.4, 3)])
def test_json_goes_on_when_its_replica_is_killed(start: Start, temperature: float, seed: int) -> None:
    first, second = start(), start()
    here, there = first.ready()["listen"], second.ready()["listen"]
    generation = asked("Make a JSON object with name Ann and age 12.", Form(PERSON), temperature, seed)

    async def story() -> None:
        undisturbed, finish = await whole(there, generation)
        assert finish is Finish.STOP
        cut = random.Random(seed).randrange(1, len(undisturbed))
        delivered: list[int] = []
        with pytest.raises(EngineLost):
            async with aclosing(told(here, generation)) as pieces:
                async for new, _ in pieces:
                    delivered += new
                    if len(delivered) >= cut:
                        first.popen.kill()
        assert cut <= len(delivered) < len(undisturbed)
        rest, finish = await whole(there, structs.replace(generation, delivered_ids=delivered))
        assert finish is Finish.STOP
        assert delivered + rest == undisturbed
        said = DIALECT.parser(generation.prompt_ids).feed(delivered + rest)
        jsonschema.validate(json.loads(said.content), PERSON)

    play(story)


def test_a_call_that_was_asked_for_is_made_and_a_bad_grammar_is_named(start: Start) -> None:
    listen = start().ready()["listen"]

    async def story() -> None:
        generation = asked("Hello there.", Form(tools=(TIMER,), many=False), 0.0, 1)
        ids, finish = await whole(listen, generation)
        said = DIALECT.parser(generation.prompt_ids).feed(ids)
        assert (finish, said.content, [call.name for call in said.calls]) == (Finish.STOP, "", ["set_timer"])
        jsonschema.validate(json.loads(said.calls[0].arguments), TIMER.parameters)
        wrong = structs.replace(generation, sampling=Sampling(grammar="start: nothing"))
        with pytest.raises(BadRequest, match="grammar can't be compiled") as caught:
            await whole(listen, wrong)
        assert caught.value.param == "grammar"
        heavy = 'start: %json {"type": "string", "pattern": "(.*a.{30}b.{30})*"}'
        letters = tuple((n, 100.0) for n in range(DIALECT.vocab_size) if DIALECT.bytes_of(n) in (b"a", b"b"))
        hopeless = structs.replace(generation, sampling=Sampling(grammar=heavy, logit_bias=letters, temperature=5.0))
        with pytest.raises(BadRequest, match="the grammar can't be kept after token") as caught:
            await whole(listen, hopeless)
        assert caught.value.param == "grammar"

    play(story)
