"""What a real llama.cpp server said once (record_llamacpp.py): the adapter reads it, and the scripted server speaks like it."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from llamacpp_process import SHIPPED

from holdfast.domain.fault import BadRequest
from holdfast.domain.request import Finish, Generation, Sampling
from holdfast.engine.exposition import parse
from holdfast.engine.http import HttpDoor
from holdfast.engine.llamacpp import LlamaCppEngine
from holdfast.engine.serving import Serving
from holdfast.engine.spelling import Spelling
from holdfast.host.clock import MonotonicClock
from holdfast.sim.foreign_model import ForeignScript
from holdfast.sim.http_engine import Asked, HttpEngine, Reply
from holdfast.sim.llamacpp_server import LlamaCppServer
from holdfast.testing.engine_contract import Heard, listen_to

RECORDED = msgspec.json.decode((Path(__file__).parent / "recorded/llamacpp.json").read_bytes())
CLOCK = MonotonicClock()
SERVING = Serving(model="ours", digest="d" * 64)
SCRIPT = ForeignScript(vocab_size=1280)
ASKED = Generation(id="g", prompt_ids=[5], sampling=Sampling(temperature=0.0), max_tokens=12, stop_ids=(1,))


def replayed(name: str, asked: Generation) -> Heard:
    """The adapter, before a server that says what was recorded, whatever it is asked."""
    said = RECORDED["exchanges"][name]

    async def answer(request: Asked, reply: Reply) -> None:
        if said["status"] != 200:
            reply.text(said["status"], said["said"].encode(), "application/json")
            return
        reply.begin()
        for event in said["said"].split("\n\n"):
            reply.piece(event.encode() + b"\n\n")

    async def run() -> Heard:
        door = HttpEngine({("POST", "/completion"): answer})
        engine = LlamaCppEngine(HttpDoor(await door.open(), CLOCK), SERVING, Spelling(SHIPPED))
        try:
            return await listen_to(engine, asked)
        finally:
            await engine.close()
            await door.close()

    return asyncio.run(run())


def test_a_recorded_stream_is_read_with_its_logprobs() -> None:
    heard = replayed("plain", msgspec.structs.replace(ASKED, sampling=Sampling(temperature=0.0, logprobs=1)))
    assert heard.ids == [50, 97, 84, 97, 81, 97, 94, 100, 93]  # "Crerbroun", as the embedded engine says it
    assert heard.finish is Finish.STOP
    told = [one for chunk in heard.chunks for one in chunk.logprobs or ()]
    assert [one.id for one in told] == heard.ids
    assert told[0].logprob == pytest.approx(-0.000136, abs=1e-5)


def test_ids_that_a_recorded_stream_leaves_out_are_read_off_its_text() -> None:
    euro = Spelling(SHIPPED).spell("€".encode())
    heard = replayed("left out", ASKED)
    assert heard.ids == [80, *euro, 81]
    assert [chunk.ids for chunk in heard.chunks][1] == euro


def test_a_recorded_refusal_is_the_requests_own_fault() -> None:
    with pytest.raises(BadRequest, match="400: Prompt contains invalid tokens"):
        replayed("refused", ASKED)


def shape(value: Any) -> Any:
    """Names and types, without what they hold."""
    if isinstance(value, dict):
        return {name: shape(one) for name, one in sorted(value.items())}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def scripted(story: Callable[[HttpDoor], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        server = LlamaCppServer(SCRIPT, CLOCK)
        door = HttpDoor(await server.door.open(), CLOCK)
        try:
            return await story(door)
        finally:
            await door.close()
            await server.door.close()

    return asyncio.run(run())


def test_the_scripted_servers_events_have_the_shape_of_recorded_ones() -> None:
    body = RECORDED["exchanges"]["plain"]["asked"]
    real = [msgspec.json.decode(data) for data in re.findall(r"data: (.*)", RECORDED["exchanges"]["plain"]["said"])]

    async def story(door: HttpDoor) -> list[Any]:
        return [msgspec.json.decode(data) async for data in door.events("/completion", msgspec.json.encode(body))]

    ours = scripted(story)
    assert shape(ours[0]) == shape(real[0])
    assert "completion_probabilities" in shape(ours[1])
    first = shape(real[2])
    first["completion_probabilities"][0]["bytes"] = []
    first["completion_probabilities"][0]["top_logprobs"][0]["bytes"] = []
    assert shape(ours[1]) == first
    assert shape(ours[-1]) == shape(real[-1])
    assert real[-1]["stop"] is ours[-1]["stop"] is True


def test_the_scripted_servers_pages_tell_what_recorded_ones_tell() -> None:
    async def story(door: HttpDoor) -> dict[str, bytes]:
        return {path: (await door.ask("GET", path, None, 5.0)).body for path in RECORDED["pages"]}

    ours = scripted(story)
    assert set(parse(ours["/metrics"])) <= set(parse(RECORDED["pages"]["/metrics"].encode()))
    for path in ("/props", "/v1/models"):
        real, told = msgspec.json.decode(RECORDED["pages"][path]), msgspec.json.decode(ours[path])
        assert set(told) <= set(real)
    real, told = (msgspec.json.decode(text) for text in (RECORDED["pages"]["/v1/models"], ours["/v1/models"]))
    assert set(told["data"][0]["meta"]) <= set(real["data"][0]["meta"])
    slots = msgspec.json.decode(RECORDED["pages"]["/slots"])
    assert set(msgspec.json.decode(ours["/slots"])[0]) <= set().union(*slots)
