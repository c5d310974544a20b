"""Resuming and repeating over HTTP: two doors, as two workers have them, on one shelf."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from doorway import LIMITS, HandClock, Place, chat_body, doorway, ids_of, request, run
from msgspec import structs

from holdfast.domain.event import BufferFull, DescriptorsLow, StreamResumed
from holdfast.domain.fault import Fenced, NoReplica
from holdfast.domain.request import Chunk, Finish, Generation
from holdfast.gateway.archive import Archive
from holdfast.gateway.buffers import Descriptors, cut_slowest
from holdfast.gateway.identify import screen
from holdfast.gateway.journal import Journal
from holdfast.gateway.record import record
from holdfast.gateway.streams import Streams
from holdfast.gateway.tenants import Tenants
from holdfast.sim.shelf import SimShelf, SimShelves

TEXT = "Hello there, this is an answer of some length."


@dataclass
class Goes:
    """Says a text from where it was left, a token a chunk; stands still after `pause` tokens until `go` is set."""

    pause: int = 1 << 30
    text: str = TEXT
    fault: Exception | None = None
    asked: list[Generation] = field(default_factory=list)
    paused: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        self.asked.append(generation)
        try:
            for i, token in enumerate(ids_of(self.text)):
                if i >= len(generation.delivered_ids):
                    if i == self.pause:
                        self.paused.set()
                        await self.go.wait()
                        if self.fault is not None:
                            raise self.fault
                    yield Chunk([token], cached_tokens=2 if i == 0 else 0)
            yield Chunk([], finish=Finish.STOP)
        finally:
            self.closed.set()


@dataclass
class Desk:
    """One worker's door and its journal."""

    place: Place
    shelf: SimShelf
    journal: Journal
    streams: Streams

    async def ask(self, path: str = "/v1/chat/completions", body: Any = None, **headers: str) -> Any:
        """One exchange on a connection of its own, while the clock is turned."""
        async with self.place.client() as client:
            answer = asyncio.ensure_future(client.ask(body, path, **headers))
            while not answer.done():
                await self.place.clock.pass_s(0.25)
            return await answer


@asynccontextmanager
async def desk(
    service: Any, shelves: SimShelves, clock: HandClock, name: str = "gateway-0.aa", **needs: Any
) -> AsyncIterator[Desk]:
    shelf = shelves.shelf()
    archive = Archive(shelf, clock)
    journal = Journal(shelf, archive, name, clock, lambda event: None)
    whole = record(journal)(service)
    streams = Streams(journal, archive, shelf, whole, clock)
    beating = asyncio.ensure_future(journal.run())
    try:
        async with doorway(whole, streams=streams, clock=clock, **needs) as place:
            yield Desk(place, shelf, journal, streams)
    finally:
        beating.cancel()


async def lose(one: Desk, until: asyncio.Event, **headers: str) -> tuple[str, list[bytes]]:
    """Ask for a stream, read until the service stands still, and break the connection. Returns the answer's name and events."""
    async with one.place.client() as client:
        client.write(request(chat_body("Hi", stream=True, stream_options={"include_usage": True}), **headers))
        await until.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        raw = await client.reader.read(1 << 16)
        head, _, body = raw.partition(b"\r\n\r\n")
        client.writer.transport.abort()
    await one.place.nobody()
    (name,) = [line[19:].decode() for line in head.split(b"\r\n") if line.startswith(b"x-holdfast-answer: ")]
    data = b"".join(line for i, line in enumerate(body.split(b"\r\n")) if i % 2)
    return name, [block + b"\n\n" for block in data.split(b"\n\n")[:-1]]


def ids_in(events: list[bytes]) -> list[str]:
    return [line[4:].decode() for event in events for line in event.split(b"\n") if line.startswith(b"id: ")]


def said(body: bytes) -> str:
    text = ""
    for line in body.decode().split("\n"):
        if line.startswith("data: {"):
            for choice in msgspec.json.decode(line[6:])["choices"]:
                text += choice["delta"].get("content", "")
    return text


def test_headers_tell_the_answers_name_and_where_to_ask_for_the_rest() -> None:
    async def story() -> None:
        async with desk(Goes(), SimShelves(), HandClock()) as one:
            answer = await one.ask(body=chat_body())
            name = answer.headers["x-holdfast-answer"]
            assert answer.json["id"] == f"chatcmpl-{name}"
            assert answer.headers["x-holdfast-resume"] == f"/v1/streams/{name}"
        full = SimShelves(full="No space left on device")
        async with desk(Goes(), full, HandClock()) as one:
            answer = await one.ask(body=chat_body())
            why = "off; the journal can't be written: No space left on device"
            assert (answer.status, answer.headers["x-holdfast-resume"]) == (200, why)
        async with doorway(Goes()) as place:
            answer = await place.chat()
            assert answer.headers["x-holdfast-resume"] == "off; this gateway keeps no journal"

    run(story())


def test_every_event_carries_an_id_and_comments_never_stand_alone() -> None:
    async def story() -> None:
        async with desk(Goes(), SimShelves(), HandClock()) as one:
            answer = await one.ask(body=chat_body(stream=True, stream_options={"include_usage": True}))
            blocks = answer.body.split(b"\n\n")[:-1]
            count = len(ids_of(TEXT))
            marks = [str(i) for i in range(count + 1)] + [f"{count}-f", f"{count}-u"]
            assert ids_in(blocks) == marks
            assert blocks[-1] == b": holdfast moves=0\ndata: [DONE]"

    run(story())


def test_another_worker_goes_on_after_the_last_event_that_arrived() -> None:
    async def story() -> None:
        shelves, clock, dying = SimShelves(), HandClock(), Goes(pause=5)
        async with desk(dying, shelves, clock) as one, desk(Goes(), shelves, clock, "gateway-1.bb") as other:
            name, events = await lose(one, dying.paused)
            assert ids_in(events) == ["0", "1", "2", "3", "4", "5"]
            shelves.die(one.shelf)
            for path in (f"/v1/streams/{name}", f"/streams/chatcmpl-{name}"):
                rest = await other.ask(path, last_event_id="3")
                assert rest.headers["x-holdfast-answer"] == name
                assert said(b"".join(events[:4])) + said(rest.body) == TEXT
                assert rest.events()[-1] == "[DONE]"
                assert rest.events()[-3]["usage"]["completion_tokens"] == len(ids_of(TEXT))
            whole = await other.ask(f"/v1/streams/{name}")
            assert said(whole.body) == TEXT
            assert whole.events()[0]["choices"][0]["delta"]["role"] == "assistant"
            told = [event for event in other.place.events if isinstance(event, StreamResumed)]
            assert [(event.generation, event.token) for event in told] == [(name, 3), (name, 3), (name, 0)]
            assert told[0].why == "asked for again from token 3; its owner is gone"

    run(story())


def test_who_says_that_it_comes_back_keeps_its_generation_for_a_while() -> None:
    async def story() -> None:
        for headers, lingers in (({"x_holdfast_resume": "yes"}, True), ({"idempotency_key": "k1"}, True), ({}, False)):
            service, clock = Goes(pause=5), HandClock()
            async with desk(service, SimShelves(), clock, linger_s=2.0) as one:
                name, _ = await lose(one, service.paused, **headers)
                await clock.pass_s(1.5)
                assert service.closed.is_set() is not lingers
                if lingers:
                    assert not (await one.streams.find(name)).left
                    await clock.pass_s(1.5)
                assert service.closed.is_set()
                assert (await one.streams.find(name)).left
                service.go.set()
                rest = await one.ask(f"/v1/streams/{name}", last_event_id="5")
                assert said(rest.body) and TEXT.endswith(said(rest.body))
                assert service.asked[-1].urgent
                assert len(service.asked[-1].delivered_ids) == 5

    run(story())


def test_an_answer_that_is_followed_lingers_on() -> None:
    async def story() -> None:
        service, clock = Goes(pause=5), HandClock()
        async with desk(service, SimShelves(), clock, linger_s=1.0) as one:
            name, events = await lose(one, service.paused, x_holdfast_resume="yes")
            async with one.place.client() as client:
                client.write(request(None, f"/v1/streams/{name}", last_event_id="5"))
                for _ in range(12):
                    await clock.pass_s(0.5)
                assert not service.closed.is_set()
                service.go.set()
                reading = asyncio.ensure_future(client.answer())
                while not reading.done():
                    await clock.pass_s(0.25)
                assert said(b"".join(events)) + said((await reading).body) == TEXT
                assert len(service.asked) == 1

    run(story())


def test_the_same_key_gets_the_same_answer_and_not_a_second_one() -> None:
    async def story() -> None:
        service, shelves, clock = Goes(), SimShelves(), HandClock()
        async with desk(service, shelves, clock) as one, desk(service, shelves, clock, "gateway-1.bb") as other:
            first = await one.ask(body=chat_body(), idempotency_key="k1")
            again = await other.ask(body=chat_body(), idempotency_key="k1")
            assert again.body == first.body
            assert again.headers["x-holdfast-replayed"] == "true"
            assert "x-holdfast-replayed" not in first.headers
            stolen = await other.ask(body=chat_body("Ho"), idempotency_key="k1")
            assert (stolen.status, stolen.error["code"]) == (422, "idempotency_key_reused")
            assert len(service.asked) == 1
            await other.ask(body=chat_body("Ho"), idempotency_key="k2")
            await other.ask(body=chat_body("Ho"), idempotency_key="k1", authorization="Bearer other")
            assert len(service.asked) == 3
            assert not shelves.claims
            bad = await other.ask(body=chat_body(), idempotency_key="with space")
            assert (bad.status, bad.error["param"]) == (400, "idempotency-key")

    run(story())


def test_a_repeat_while_it_runs_follows_it() -> None:
    async def story() -> None:
        service, shelves, clock = Goes(pause=5), SimShelves(), HandClock()
        async with desk(service, shelves, clock) as one, desk(service, shelves, clock, "gateway-1.bb") as other:
            first = asyncio.ensure_future(one.ask(body=chat_body(stream=True), idempotency_key="k1"))
            await service.paused.wait()
            second = asyncio.ensure_future(other.ask(body=chat_body(stream=True), idempotency_key="k1"))
            await clock.pass_s(0.5)
            assert not second.done()
            service.go.set()
            assert said((await first).body) == said((await second).body) == TEXT
            assert len(service.asked) == 1

    run(story())


def test_a_key_whose_request_failed_may_be_tried_again() -> None:
    async def story() -> None:
        service, shelves = Goes(pause=0, fault=NoReplica("nobody is there")), SimShelves()
        service.go.set()
        async with desk(service, shelves, HandClock()) as one:
            failed = await one.ask(body=chat_body(), idempotency_key="k1")
            assert failed.status == 503
            service.fault = None
            again = await one.ask(body=chat_body(), idempotency_key="k1")
            assert (again.status, len(service.asked)) == (200, 2)
            assert not shelves.claims

    run(story())


def test_a_whole_answer_comes_whole_however_it_is_asked_for() -> None:
    async def story() -> None:
        async with desk(Goes(), SimShelves(), HandClock()) as one:
            first = await one.ask(body=chat_body())
            again = await one.ask(f"/v1/streams/{first.headers['x-holdfast-answer']}")
            assert again.body == first.body

    run(story())


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer other"}, {"authorization": "Bearer sesame"}])
def test_only_the_key_that_asked_gets_the_rest(headers: dict[str, str]) -> None:
    async def story() -> None:
        tenants = Tenants(keys={"sesame": "default", "other": "default"})
        async with desk(Goes(), SimShelves(), HandClock(), screen=screen(tenants)) as one:
            first = await one.ask(body=chat_body(stream=True), authorization="Bearer sesame")
            got = await one.ask(f"/v1/streams/{first.headers['x-holdfast-answer']}", **headers)
            wanted = {"": 401, "Bearer other": 404, "Bearer sesame": 200}[headers.get("authorization", "")]
            assert got.status == wanted
            if wanted == 404:
                assert got.error["code"] == "stream_not_found"

    run(story())


def test_what_is_not_there_and_what_is_asked_wrongly() -> None:
    async def story() -> None:
        async with desk(Goes(), SimShelves(), HandClock()) as one:
            lost = await one.ask("/v1/streams/" + "ab" * 12)
            assert (lost.status, lost.error["code"]) == (404, "stream_not_found")
            assert (await one.ask("/v1/streams/" + "x" * 200)).status == 404
            assert (await one.ask("/v1/streams/x", body={})).status == 405
            first = await one.ask(body=chat_body(stream=True))
            bad = await one.ask(f"/v1/streams/{first.headers['x-holdfast-answer']}", last_event_id="yesterday")
            assert (bad.status, bad.error["param"]) == (400, "last-event-id")
        async with doorway(Goes()) as place:
            lost = await place.get("/v1/streams/" + "ab" * 12)
            assert (lost.status, lost.error["code"]) == (404, "stream_not_found")

    run(story())


def test_a_fenced_answer_says_that_it_goes_on_elsewhere() -> None:
    async def story() -> None:
        service = Goes(pause=3, fault=Fenced("another gateway worker has taken this answer over"))
        service.go.set()
        async with desk(service, SimShelves(), HandClock()) as one:
            answer = await one.ask(body=chat_body(stream=True))
            assert answer.events()[-1]["error"]["code"] == "answer_taken_over"

    run(story())


def test_stop_strings_end_a_repeat_where_they_ended_the_first() -> None:
    async def story() -> None:
        service, shelves = Goes(), SimShelves()
        async with desk(service, shelves, HandClock()) as one:
            first = await one.ask(body=chat_body(stop="is an"), idempotency_key="k1")
            again = await one.ask(body=chat_body(stop="is an"), idempotency_key="k1")
            assert first.json["choices"][0]["message"]["content"] == "Hello there, this "
            assert again.body == first.body
            assert len(service.asked) == 1

    run(story())


@dataclass
class Slow:
    unread_bytes: int
    generation: str
    cut: bool = False

    def abort(self) -> None:
        self.cut = True


def test_the_slowest_are_cut_when_all_unread_bytes_are_too_many() -> None:
    events: list[Any] = []
    readers = [Slow(100, "a"), Slow(900, "b"), Slow(0, "c"), Slow(500, "d")]
    assert cut_slowest(readers, structs.replace(LIMITS, buffers_bytes_max=300), events.append) == 2
    assert [one.generation for one in readers if one.cut] == ["b", "d"]
    assert [type(event) for event in events] == [BufferFull] * 2
    assert events[0].why == "all clients together leave 1500 bytes unread, over the limit of 300"
    assert cut_slowest(readers[:1], structs.replace(LIMITS, buffers_bytes_max=300), events.append) == 0


def test_descriptors_are_counted_now_and_then_and_told_once() -> None:
    events: list[Any] = []
    used = [10]
    watched = Descriptors(lambda: (used[0], 100), 0.8, events.append)
    assert [watched.look() for _ in range(4)] == [""] * 4
    used[0] = 81
    why = "Too many files and connections are open in this gateway; retry shortly."
    assert [watched.look() for _ in range(8)] == [why] * 8
    assert [(type(event), event.why) for event in events] == [
        (DescriptorsLow, "81 of 100 file descriptors are open: new connections are refused")
    ]
    used[0] = 10
    assert watched.look() == ""
    assert Descriptors(None, 0.8, events.append).look() == ""


def test_a_door_short_of_descriptors_refuses_new_connections_only() -> None:
    async def story() -> None:
        used = [1]
        shelves, clock = SimShelves(), HandClock()
        async with desk(Goes(), shelves, clock, descriptors=lambda: (used[0], 10)) as one, one.place.client() as old:
            await old.ask(None, "/health/live")
            used[0] = 9
            await one.place.clock.pass_s(1.5)
            refused = await one.ask(body=chat_body())
            assert (refused.status, refused.error["code"]) == (503, "connections")
            assert (await old.ask(None, "/health/live")).status == 200

    run(story())
