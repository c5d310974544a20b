"""HTTP/1.1 itself: order, limits, deadlines, hang-ups, pages."""

import asyncio
import socket
from typing import Any

import msgspec
import pytest
from doorway import Place, Says, chat_body, doorway, ids_of, request, run
from prometheus_client.parser import text_string_to_metric_families

from holdfast.domain.event import RequestRefused
from holdfast.domain.fault import Overloaded
from holdfast.domain.request import Chunk, Finish, Generation
from holdfast.gateway.needs import Limits

SMALL = Limits(body_bytes_max=10_000, pipelined_max=3, connections_max=2)


def content(answer: Any) -> str:
    text: str = answer.json["choices"][0]["message"]["content"]
    return text


def test_many_requests_on_one_connection_are_answered_in_order() -> None:
    async def echo(generation: Generation) -> Any:
        yield Chunk([generation.prompt_ids[2]], finish=Finish.STOP)

    async def story() -> None:
        async with doorway(echo) as place, place.client() as client:
            client.write(b"".join(request(chat_body(letter)) for letter in "abcd"))
            client.write(request(None, "/health/live") + request(chat_body("e")))
            said = [content(await client.answer()) for _ in range(4)]
            assert said == list("abcd")
            assert (await client.answer()).json == {"live": True}
            assert content(await client.answer()) == "e"
            assert place.door.connections == 1

    run(story())


def test_a_request_in_single_bytes_is_the_same_request() -> None:
    async def story() -> None:
        async with doorway(Says()) as place, place.client() as client:
            for byte in request(chat_body("héllo")):
                client.write(bytes([byte]))
                await client.writer.drain()
                await asyncio.sleep(0)
            assert (await client.answer()).status == 200

    run(story())


def test_a_chunked_body_is_read_and_100_continue_is_said() -> None:
    async def story() -> None:
        async with doorway(Says()) as place, place.client() as client:
            raw = msgspec.json.encode(chat_body())
            client.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n"
                b"transfer-encoding: chunked\r\n\r\n"
            )
            assert (await client.answer()).status == 100
            for part in (raw[:10], raw[10:]):
                client.write(b"%x\r\n%b\r\n" % (len(part), part))
            client.write(b"0\r\nauthorization: Bearer late\r\n\r\n")
            assert (await client.answer()).status == 200

    run(story())


BAD = {
    "both lengths": (b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "two lengths": (b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc", 400),
    "odd length": (b"content-length: 3x\r\n\r\nabc", 400),
    "odd coding": (b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "bare line feed": (b"x: y\nz: w\r\n\r\n", 400),
    "space before colon": (b"x : y\r\n\r\n", 400),
    "folded": (b"x: y\r\n z\r\n\r\n", 400),
    "two hosts": (b"host: b\r\n\r\n", 400),
    "nul": (b"x: \0\r\n\r\n", 400),
    "huge chunk": (b"transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n", 400),
    "long head": (b"x: " + b"y" * 70_000 + b"\r\n\r\n", 431),
    "long head in parts": (b"".join(b"x%d: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" % i for i in range(3000)), 431),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_could_smuggle_or_flood_is_refused_and_closed(bad: str) -> None:
    async def story() -> None:
        says = Says()
        async with doorway(says) as place, place.client() as client:
            lines, status = BAD[bad]
            client.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n" + lines)
            answer = await client.answer()
            assert answer.status == status and answer.error["code"]
            assert answer.headers["connection"] == "close"
            client.write(request(chat_body()))
            assert await client.ended() and says.asked == []

    run(story())


def test_a_body_over_the_limit_is_413_told_or_found() -> None:
    async def story() -> None:
        says = Says()
        async with doorway(says, SMALL) as place:
            async with place.client() as client:
                answer = await client.chat("x" * 20_000)
                assert (answer.status, answer.error["code"]) == (413, "request_too_large")
            async with place.client() as client:
                client.write(b"POST /chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
                client.write(b"3000\r\n" + b"x" * 0x3000)
                assert (await client.answer()).status == 413
                assert await client.ended()
            assert says.asked == []

    run(story())


def test_trickling_bytes_do_not_extend_the_head_nor_the_body() -> None:
    async def story() -> None:
        async with doorway(Says(), Limits(bytes_per_s_min=0)) as place:
            async with place.client() as client:
                client.write(b"POST /v1/chat/completions HTTP/1.1\r\n")
                for _ in range(9):
                    await place.clock.pass_s(1)
                    client.write(b"x: y\r\n")
                    await client.writer.drain()
                await place.clock.pass_s(2)
                assert (await client.answer()).status == 408
                assert await client.ended()
            async with place.client() as client:
                client.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 900\r\n\r\n")
                for _ in range(31):
                    client.write(b" ")
                    await client.writer.drain()
                    await place.clock.pass_s(1)
                assert (await client.answer()).status == 408

    run(story())


def test_a_connection_that_says_nothing_is_closed_without_a_word() -> None:
    async def story() -> None:
        async with doorway(Says()) as place, place.client() as fresh, place.client() as used:
            assert (await used.chat()).status == 200
            await place.clock.pass_s(10.5)
            assert await fresh.ended()
            assert place.door.connections == 1
            await place.clock.pass_s(65)
            assert await used.ended()

    run(story())


def test_a_client_that_hangs_up_frees_the_replica_at_once() -> None:
    async def story() -> None:
        for stream in (False, True):
            says = Says(hold=True)
            async with doorway(says) as place:
                async with place.client() as client:
                    client.write(request(chat_body(stream=stream)))
                    await says.begun.wait()
                    assert place.door.tally.in_flight == 1
                await says.closed.wait()
                await place.nobody()
                assert (place.door.tally.in_flight, place.door.tally.streams) == (0, 0)

    run(story())


def test_a_client_that_does_not_read_is_waited_for_and_then_cut() -> None:
    async def story() -> None:
        made = 0
        closed = asyncio.Event()
        long_word = ids_of(" backwards")

        async def flood(generation: Generation) -> Any:
            nonlocal made
            try:
                while True:
                    made += 1
                    yield Chunk(long_word * 1000)
            finally:
                closed.set()

        async with doorway(flood) as place, place.client() as client:
            client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.reader._transport.pause_reading()
            client.write(request(chat_body(stream=True)))
            before = -1
            while before != made or not made:
                before = made
                await place.clock.pass_s(1)
            assert not closed.is_set() and made < 100_000
            await place.clock.pass_s(61)
            await closed.wait()
            assert place.door.tally.stalled == 1

    run(story())


def test_too_many_pipelined_requests_are_refused_after_what_was_owed() -> None:
    async def story() -> None:
        says = Says(hold=True)
        async with doorway(says, SMALL) as place, place.client() as client:
            client.write(b"".join(request(chat_body(letter)) for letter in "abcdefgh"))
            await says.begun.wait()
            says.go.set()
            statuses = [(await client.answer()).status for _ in range(6)]
            assert statuses == [200, 200, 200, 200, 200, 429]
            assert await client.ended()

    run(story())


def test_connections_over_the_cap_are_told_so() -> None:
    async def story() -> None:
        async with doorway(Says(), SMALL) as place, place.client() as one, place.client() as two:
            assert (await one.chat()).status == (await two.chat()).status == 200
            async with place.client() as third:
                answer = await third.answer()
                assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert (await one.chat()).status == 200

    run(story())


def test_old_clients_get_unchunked_answers_and_a_closed_connection() -> None:
    async def story() -> None:
        async with doorway(Says("Hello.")) as place:
            async with place.client() as client:
                raw = request(chat_body(stream=True)).replace(b"HTTP/1.1", b"HTTP/1.0")
                client.write(raw)
                answer = await client.answer()
                assert "transfer-encoding" not in answer.headers and answer.events()[-1] == "[DONE]"
            async with place.client() as client:
                old = request(chat_body(), connection="keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0")
                for _ in range(2):
                    client.write(old)
                    assert (await client.answer()).headers["connection"] == "keep-alive"

    run(story())


def test_a_wish_to_upgrade_is_answered_in_http_1() -> None:
    async def story() -> None:
        async with doorway(Says()) as place, place.client() as client:
            upgrade = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c"}
            assert (await client.ask(chat_body(), **upgrade)).status == 200
            assert (await client.ask(chat_body())).status == 200

    run(story())


def test_pages() -> None:
    async def story() -> None:
        ready = (True, "2 replicas serve")
        async with doorway(Says(), ready=lambda: ready) as place, place.client() as client:
            models = (await client.ask(None, "/v1/models")).json
            assert [row["id"] for row in models["data"]] == ["pearl", "deepseek-chat", "deepseek-reasoner"]
            assert (await client.ask(None, "/v1/models/pearl")).json == models["data"][0]
            assert (await client.ask(None, "/models/nope")).status == 404
            assert (await client.ask(None, "/health/ready?x=1")).json == {"ready": True, "why": "2 replicas serve"}
            ready = (False, "no replica has joined yet")
            answer = await client.ask(None, "/health/ready")
            assert (answer.status, answer.json["why"]) == (503, "no replica has joined yet")
            wrong = await client.ask(None, "/v1/chat/completions")
            assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
            wrong = await client.ask(b"{}", "/v1/models")
            assert (wrong.status, wrong.headers["allow"]) == (405, "GET")
            assert (await client.ask(None, "/v2/nothing")).error["code"] == "not_found"
            client.write(request(None, "/health/live", "HEAD") + request(None, "/health/live"))
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert b"content-length: 13" in head and (await client.answer()).json == {"live": True}
            assert "date" in answer.headers

    run(story())


def test_metrics_add_up() -> None:
    async def metrics(place: Place) -> dict[str, float]:
        text = (await place.get("/metrics")).body.decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {s.name + "".join(f",{v}" for v in s.labels.values()): s.value for s in samples}

    async def story() -> None:
        says = Says("One two.")
        async with doorway(says) as place:
            await place.chat()
            await place.chat(stream=True)
            await place.chat(n=0)
            says.fault = Overloaded("full", 1)
            await place.chat()
            found = await metrics(place)
            assert found["holdfast_requests_total,200"] == 2
            assert found["holdfast_requests_total,400"] == found["holdfast_requests_total,503"] == 1
            assert found["holdfast_refusals_total,overloaded"] == 1
            assert found["holdfast_completion_tokens_total"] == 2 * says.said / 2
            assert found["holdfast_prompt_tokens_cached_total"] == 6
            assert found["holdfast_requests_in_flight"] == found["holdfast_streams_open"] == 0
            assert found["holdfast_ttft_seconds_count"] == 2
            assert found["holdfast_inter_token_seconds_count"] == says.said - 2
            refused = [event.status for event in place.events if isinstance(event, RequestRefused)]
            assert refused == [400, 503]

    run(story())


def test_a_handler_that_fails_answers_500_and_the_door_lives_on() -> None:
    async def story() -> None:
        says = Says(fault=ZeroDivisionError("planted"))
        reported: list[Any] = []
        async with doorway(says) as place, place.client() as client:
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
            answer = await client.chat()
            assert (answer.status, answer.error["code"]) == (500, "internal_error")
            assert "planted" not in answer.body.decode()
            says.fault = None
            assert (await client.chat()).status == 200
            assert isinstance(reported[0]["exception"], ZeroDivisionError)
            says.fault, says.fault_after = ZeroDivisionError("planted later"), 1
            client.write(request(chat_body(stream=True)))
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await client.answer()
            assert place.door.tally.mistakes == 2

    run(story())


def test_draining_ends_what_was_begun_and_takes_nothing_new() -> None:
    async def story() -> None:
        says = Says(hold=True)
        async with doorway(says) as place, place.client() as busy, place.client() as idle, place.client() as quiet:
            assert (await idle.ask(None, "/health/ready")).status == 200
            busy.write(request(chat_body(stream=True)))
            await says.begun.wait()
            drained = asyncio.create_task(place.door.drain(30))
            await place.clock.pass_s(0.5)
            late = await idle.ask(None, "/health/ready")  # on a connection that was in use: answered, told to close
            assert (late.status, late.headers["connection"]) == (503, "close")
            assert await idle.ended()
            idle.writer.close()
            await place.clock.pass_s(1)
            assert await quiet.ended()
            with pytest.raises(OSError):
                await asyncio.open_connection("127.0.0.1", place.port)
            says.go.set()
            answer = await busy.answer()
            assert answer.events()[-1] == "[DONE]" and await busy.ended()
            busy.writer.close()
            await place.nobody()
            await place.clock.pass_s(1)
            await drained

    run(story())


def test_draining_cuts_what_outlasts_the_grace() -> None:
    async def story() -> None:
        says = Says(hold=True)
        async with doorway(says) as place, place.client() as busy:
            busy.write(request(chat_body(stream=True)))
            await says.begun.wait()
            drained = asyncio.create_task(place.door.drain(5))
            await place.clock.pass_s(4)
            assert not says.closed.is_set()
            await place.clock.pass_s(2)
            await drained
            await says.closed.wait()

    run(story())
