"""What one client, address or key may take of the door, in bytes, seconds and connections; and what browsers are told."""

import asyncio
import socket
from typing import Any

import pytest
from doorway import Client, Place, Says, chat_body, doorway, ids_of, request, run

from holdfast.domain.request import Chunk
from holdfast.gateway.needs import Limits

POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n"


async def sent(client: Client, data: bytes) -> None:
    client.write(data)
    await client.writer.drain()


def test_a_body_that_comes_too_slowly_is_refused_long_before_its_deadline() -> None:
    async def story() -> None:
        async with doorway(Says()) as place:
            for start in (b"content-length: 90000\r\n\r\n", b"transfer-encoding: chunked\r\n\r\nfff0\r\n"):
                async with place.client() as client:
                    await sent(client, POST + start)
                    for _ in range(5):
                        await sent(client, b"x" * 900)
                        await place.clock.pass_s(1)
                    assert place.door.tally.by_status == {}
                    await place.clock.pass_s(5)
                    answer = await client.answer()
                    assert (answer.status, answer.error["code"]) == (408, "too_slow")
                    assert "less than 1024 bytes a second" in answer.error["message"] and await client.ended()
                    place.door.tally.by_status.clear()

    run(story())


def test_a_body_that_keeps_pace_may_take_its_time() -> None:
    async def story() -> None:
        async with doorway(Says()) as place, place.client() as client:
            raw = request(chat_body("Hi" + " " * 30_000))
            await sent(client, raw[:2000])
            for at in range(2000, len(raw), 1500):
                await place.clock.pass_s(1)
                await sent(client, raw[at : at + 1500])
            assert (await client.answer()).status in (200, 400)  # read whole, whatever the model's context says to it

    run(story())


def test_an_answer_that_is_taken_a_little_at_a_time_is_not_given_forever() -> None:
    """One that reads a few bytes now and then is as good as one that reads none."""

    async def story() -> None:
        closed, made = asyncio.Event(), 0
        long_word = ids_of(" backwards")

        async def flood(generation: object) -> Any:
            nonlocal made
            try:
                while True:
                    made += 1
                    yield Chunk(long_word * 1000)
            finally:
                closed.set()

        async with doorway(flood) as place:
            with socket.create_connection(("127.0.0.1", place.port)) as plug:
                plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                plug.sendall(request(chat_body(stream=True)))
                plug.setblocking(False)
                before = -1
                while before != made or not made:
                    before = made
                    await place.clock.pass_s(1)
                for _ in range(70):
                    await place.clock.pass_s(1)
                    if closed.is_set():
                        break
                    await asyncio.get_running_loop().sock_recv(plug, 64)
                await closed.wait()
                assert place.door.tally.stalled == 1
            await place.nobody()

    run(story())


def test_headers_are_counted() -> None:
    async def story() -> None:
        async with doorway(Says()) as place, place.client() as client:
            for count, status in ((90, 200), (101, 431)):
                lines = b"".join(b"x-%d: y\r\n" % i for i in range(count - 1))
                client.write(b"GET /health/live HTTP/1.1\r\nhost: a\r\n" + lines + b"\r\n")
                assert (await client.answer()).status == status
            assert await client.ended()

    run(story())


DEEP = {
    "lists": b'{"x": ' + b"[" * 40 + b"]" * 40 + b"}",
    "objects": b'{"x": ' + b'{"a":' * 40 + b"1" + b"}" * 40 + b"}",
    "both in turn": b'{"x": ' + b'[{"a":' * 20 + b"1" + b"}]" * 20 + b"}",
    "never closed": b"[" * 1_000_000,
    "behind strings": b'{"x": ["\\"]]]]", ' + b"[" * 40 + b"]" * 40 + b"]}",
    "values": b'{"x": [' + b"0," * 150_000 + b"0]}",
    "strings": b'{"x": [' + b'"",' * 150_000 + b'""]}',
    "keys": b'{"x": {' + b'"a":0,' * 150_000 + b'"a":0}}',
}


@pytest.mark.parametrize("kind", DEEP)
def test_json_that_is_deep_or_many_is_refused_before_it_is_decoded(kind: str) -> None:
    async def story() -> None:
        async with doorway(Says()) as place, place.client() as client:
            answer = await client.ask(DEEP[kind])
            assert (answer.status, answer.error["code"]) == (400, "invalid_json")
            assert (
                "nested more than 32 deep" in answer.error["message"]
                or "more than 100000 values" in answer.error["message"]
            )
            assert (await client.chat()).status == 200

    run(story())


def test_brackets_in_texts_are_texts() -> None:
    async def story() -> None:
        async with doorway(Says()) as place, place.client() as client:
            for text in ("[" * 300, '{"a": [' * 40, '\\"[' * 40, "\\\\" * 100 + "[" * 50, '"' * 40 + "{" * 40):
                assert (await client.chat(text)).status == 200
            deep: Any = "x"
            for _ in range(25):
                deep = [deep]
            assert (await client.chat("Hi", metadata=deep)).status == 200

    run(story())


def test_numbers_of_thousands_of_digits_are_refused_by_name() -> None:
    async def story() -> None:
        async with doorway(Says()) as place, place.client() as client:
            body = (
                b'{"model": "pearl", "messages": [{"role": "user", "content": "Hi"}], "seed": ' + b"9" * 50_000 + b"}"
            )
            answer = await client.ask(body)
            assert (answer.status, answer.error["param"]) == (400, "seed")

    run(story())


def test_one_address_can_not_take_all_connections() -> None:
    async def story() -> None:
        limits = Limits(connections_per_address_max=3)
        async with doorway(Says(), limits) as place:
            held = [await asyncio.open_connection("127.0.0.1", place.port) for _ in range(3)]
            async with place.client() as one_more:
                answer = await one_more.answer()
                assert (answer.status, answer.error["code"]) == (429, "connections_per_address")
                assert answer.headers["retry-after"] == "1" and await one_more.ended()
            reader, writer = await asyncio.open_connection("127.0.0.1", place.port, local_addr=("127.0.0.2", 0))
            assert (await Client(reader, writer).chat()).status == 200
            writer.close()
            for _, each in held:
                each.close()
            await place.nobody()
            assert (await place.chat()).status == 200

    run(story())


def test_one_key_can_not_take_all_connections_and_counts_for_itself_only() -> None:
    async def story() -> None:
        async def ask(place: Place, key: str) -> Any:
            reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
            client = Client(reader, writer)
            return client, await client.ask(chat_body(), authorization=f"Bearer {key}")

        async with doorway(Says(), Limits(connections_per_key_max=2)) as place:
            held = [await ask(place, "acme") for _ in range(2)]
            assert [answer.status for _, answer in held] == [200, 200]
            client, answer = await ask(place, "acme")
            assert (answer.status, answer.error["code"]) == (429, "connections_per_key")
            assert await client.ended()
            client.writer.close()
            other, answer = await ask(place, "zeta")
            assert answer.status == 200
            assert (await held[0][0].ask(chat_body(), authorization="Bearer zeta")).status == 200  # it changes hands
            third, answer = await ask(place, "acme")
            assert answer.status == 200
            for one in (*(one for one, _ in held), other, third):
                one.writer.close()
            await place.nobody()

    run(story())


def test_an_old_connection_is_told_to_close_with_its_next_answer() -> None:
    async def story() -> None:
        async with doorway(Says(), Limits(keep_s=100.0)) as place, place.client() as client:
            for _ in range(2):
                assert "connection" not in (await client.chat()).headers
                await place.clock.pass_s(60)
            assert (await client.chat()).headers["connection"] == "close"
            assert await client.ended()

    run(story())


def test_nobody_is_asked_to_go_on_with_what_would_be_refused() -> None:
    async def story() -> None:
        async with doorway(Says(), Limits(body_bytes_max=1000)) as place, place.client() as client:
            client.write(POST + b"expect: 100-continue\r\ncontent-length: 1001\r\n\r\n")
            assert (await client.answer()).status == 413
            assert await client.ended()

    run(story())


def test_going_on_is_said_between_answers_and_not_within_one() -> None:
    async def story() -> None:
        says = Says(hold=True)
        async with doorway(says) as place, place.client() as client:
            raw = request(chat_body(), expect="100-continue")
            head = raw[: raw.index(b"\r\n\r\n") + 4]
            client.write(request(chat_body(stream=True)) + head)
            await says.begun.wait()
            says.go.set()
            assert (await client.answer()).events()[-1] == "[DONE]"
            assert (await client.answer()).status == 100
            client.write(raw[len(head) :])
            assert (await client.answer()).status == 200

    run(story())


def test_options_tell_what_may_be_asked() -> None:
    async def story() -> None:
        async with doorway(Says()) as place, place.client() as client:
            for path, allowed in (
                ("/v1/chat/completions", "POST, OPTIONS"),
                ("/v1/models", "GET, HEAD, OPTIONS"),
                ("/v1/streams/x", "GET, HEAD, OPTIONS"),
            ):
                client.write(request(None, path, "OPTIONS", origin="https://a.example"))
                head = (await client.reader.readuntil(b"\r\n\r\n")).decode()
                assert head.startswith("HTTP/1.1 204 ") and f"allow: {allowed}\r\n" in head
                assert "content-length" not in head and "access-control" not in head
            assert (await client.chat()).status == 200

    run(story())


def test_pages_of_named_origins_may_ask_and_of_others_not() -> None:
    async def story() -> None:
        mine, headers = "https://chat.example.org", "authorization, content-type, x-stainless-lang"
        async with doorway(Says(), cors=(mine,)) as place, place.client() as client:
            wanted = {"access_control_request_method": "POST", "access_control_request_headers": headers}
            for origin, may in ((mine, True), ("https://evil.example", False)):
                client.write(request(None, "/v1/chat/completions", "OPTIONS", origin=origin, **wanted))
                head = (await client.reader.readuntil(b"\r\n\r\n")).decode()
                assert (f"access-control-allow-origin: {origin}\r\n" in head) is may
                assert (f"access-control-allow-headers: {headers}\r\n" in head) is may
                assert ("access-control-allow-methods: POST, OPTIONS\r\n" in head) is may and "vary: origin" in head
                for stream in (False, True):
                    answer = await client.ask(chat_body(stream=stream), origin=origin)
                    assert answer.status == 200  # it is the browser that keeps the answer from the page
                    assert answer.headers.get("access-control-allow-origin") == (origin if may else None)
                refused = await client.ask({"model": "none"}, origin=origin)
                assert ("access-control-allow-origin" in refused.headers) is may
            assert "vary" not in (await client.chat()).headers

    run(story())


def test_who_takes_no_answer_gets_no_further_one_and_all_of_them_in_order_once_it_does() -> None:
    """Pages without flow of their own, pipelined by the dozen: what is kept for a client stays bounded."""

    async def story() -> None:
        async with doorway(Says(), Limits(stream_bytes_max=16 * 1024, pipelined_max=2000)) as place:
            with socket.socket() as plug:
                plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
                plug.connect(("127.0.0.1", place.port))
                plug.setblocking(False)
                got, loop = b"", asyncio.get_running_loop()
                asked = b"".join(request(None, f"/v1/models/{'x' * 600}{i:04d}") for i in range(900))
                await loop.sock_sendall(plug, asked)
                before = -1
                while before != place.door.tally.by_status.get(404, 0) or not before:
                    before = place.door.tally.by_status.get(404, 0)
                    for _ in range(200):
                        await asyncio.sleep(0)
                assert before < 900
                while got.count(b"HTTP/1.1 404") < 900 or not got.endswith(b"}}"):
                    got += await loop.sock_recv(plug, 65536)
                told = [got.find(f"x{i:04d}'".encode()) for i in range(900)]
                assert told == sorted(told) and -1 not in told

    run(story())
