"""holdfast load against servers on real sockets: what it counts, from which moment it counts, and a whole run of the verb."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from site_up import Site

from holdfast.drill.load_crew import Crew
from holdfast.drill.load_plan import Client, Lengths, Phase, Plan
from holdfast.drill.load_tally import Tally
from holdfast.host.clock import MonotonicClock

STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}\n\n'
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}\n\n'
DONE = b"data: [DONE]\n\n"
Answer = Callable[[int, asyncio.StreamWriter], Awaitable[None]]


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


WHOLE_STREAM = STREAM + chunked(b": keep-alive\n\n", TOKEN, TOKEN, END, DONE) + b"0\r\n\r\n"


def page(status: int, body: object, *headers: str) -> bytes:
    raw = msgspec.json.encode(body)
    lines = "".join(f"{one}\r\n" for one in headers)
    return f"HTTP/1.1 {status} X\r\ncontent-length: {len(raw)}\r\n{lines}\r\n".encode() + raw


def full(name: str) -> bytes:
    error = {"message": "no", "code": "overloaded", "limit": {"name": name}}
    return page(503, {"error": error}, "retry-after: 1", "retry-after-ms: 40")


async def served(answer: Answer, **plan: object) -> tuple[Tally, list[bytes]]:
    """What a load finds at a server that answers the n-th request so, and the requests as they came."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                seen.append(head + await reader.readexactly(length))
                await answer(len(seen), writer)
        except (asyncio.IncompleteReadError, ConnectionResetError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        made = msgspec.convert({"url": address, "model": "m", **plan}, Plan)
        clock = MonotonicClock()
        return await Crew(made, clock).run(clock.now()), seen


def always(data: bytes) -> Answer:
    async def answer(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return answer


def phase(rate: float, seconds: float) -> tuple[Phase, ...]:
    return (Phase(rate, seconds),)


def test_streams_are_counted_token_by_token() -> None:
    plan = {"phases": phase(50, 0.4), "clients": (Client("a", "key-a"),), "deadline_s": 5.0, "arrival": "constant"}
    tally, seen = asyncio.run(served(always(WHOLE_STREAM), **plan))
    assert tally.counts == {
        "offered": 20,
        "attempts": 20,
        "good": 20,
        "late": 0,
        "refused": 0,
        "errored": 0,
        "gave_up": 0,
    }
    assert tally.clients["a"]["good"] == 20
    assert tally.times["gap"].get_total_count() == 20  # two tokens each
    assert tally.times["ttft"].get_total_count() == 20
    assert tally.reasons == {}
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert b"authorization: Bearer key-a" in head
    assert b"x-holdfast-deadline-s: 5" in head
    sent = json.loads(body)
    assert (sent["model"], sent["max_tokens"], sent["stream"], sent["ignore_eos"]) == ("m", 32, True, True)
    assert len(sent["messages"][0]["content"].split()) == 32
    assert seen[0] != seen[1]


def test_a_server_that_stalls_is_charged_for_all_that_was_due_meanwhile() -> None:
    """Coordinated omission: a closed loop would have seen one slow answer here. The stall lasts until 40 more are due."""
    due = asyncio.Event()

    async def answer(number: int, writer: asyncio.StreamWriter) -> None:
        if number <= 40:
            if number == 40:
                due.set()
            await due.wait()
        writer.write(WHOLE_STREAM)

    plan = {"phases": phase(100, 0.6), "arrival": "constant"}
    tally, _ = asyncio.run(served(answer, **plan))
    assert tally.counts["good"] == 60
    waits = tally.times["latency"]
    assert waits.get_value_at_percentile(100) >= 380_000  # the first waited for the fortieth to be due: 39 x 10 ms
    assert waits.get_value_at_percentile(50) >= 80_000  # and so did half of all, each for its own part of it
    assert waits.get_value_at_percentile(5) < waits.get_value_at_percentile(60)


def test_waiting_for_a_connection_counts_too() -> None:
    """With one connection, answers that need 20 ms each and are due every 5 ms: the last waits for all before it."""
    clock = MonotonicClock()

    async def answer(number: int, writer: asyncio.StreamWriter) -> None:
        await clock.sleep(0.02)
        writer.write(WHOLE_STREAM)

    plan = {"phases": phase(200, 0.1), "arrival": "constant", "connections_max": 1}
    tally, _ = asyncio.run(served(answer, **plan))
    assert tally.connections == 1
    assert tally.counts["good"] == 20
    assert tally.times["latency"].get_max_value() >= 300_000  # 20 x 20 ms, less the 100 in which they came


def test_refusals_are_told_apart_by_their_limit() -> None:
    pages = [
        full("queue_wait"),
        page(429, {"error": {"message": "slow", "code": "rate_limit_exceeded"}}),
        page(503, {"error": {"message": "x", "code": "engine_lost"}}),
        page(500, "oops"),
    ]

    async def answer(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(pages[(number - 1) % len(pages)])

    tally, _ = asyncio.run(served(answer, phases=phase(100, 0.2), arrival="constant", connections_max=1))
    assert tally.reasons == {
        "503 queue_wait": 5,
        "429 rate_limit_exceeded": 5,
        "503 engine_lost": 5,
        "500 no reason given": 5,
    }
    assert (tally.counts["refused"], tally.counts["errored"]) == (10, 10)
    assert tally.times["refusal"].get_total_count() == 10


def test_refusals_and_failures_inside_a_stream_have_their_word() -> None:
    bodies = [
        b'data: {"error":{"message":"x","code":"overloaded","limit":{"name":"deadline"}}}\n\n',
        b'data: {"error":{"message":"x","code":"engine_lost"}}\n\n',
    ]

    async def answer(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + chunked(bodies[number % 2], DONE) + b"0\r\n\r\n")

    tally, _ = asyncio.run(served(answer, phases=phase(50, 0.2), arrival="constant", connections_max=1))
    assert tally.reasons == {"in the stream: deadline": 5, "in the stream: engine_lost": 5}
    assert (tally.counts["refused"], tally.counts["errored"]) == (5, 5)


def test_a_retry_obeys_and_the_first_moment_counts() -> None:
    async def answer(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(full("queue_wait") if number <= 2 else WHOLE_STREAM)

    plan = {"phases": phase(1, 1), "retries": 3, "arrival": "constant"}
    tally, seen = asyncio.run(served(answer, **plan))
    assert len(seen) == 3
    assert (tally.counts["offered"], tally.counts["attempts"], tally.counts["good"]) == (1, 3, 1)
    assert tally.times["latency"].get_max_value() >= 80_000  # twice 40 ms, as retry-after-ms said
    assert tally.times["refusal"].get_max_value() < 80_000  # each refusal from when its own attempt was due


def test_patience_ends_and_what_was_waited_is_entered() -> None:
    async def answer(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM)

    plan = {"phases": phase(20, 0.2), "arrival": "constant", "patience_s": 0.1}
    tally, _ = asyncio.run(served(answer, **plan))
    assert tally.counts["gave_up"] == 4
    assert tally.times["ttft"].get_min_value() >= 99_000


def test_the_warm_up_is_asked_and_not_counted() -> None:
    plan = {"phases": phase(50, 0.4), "arrival": "constant", "warm_s": 0.2}
    tally, seen = asyncio.run(served(always(WHOLE_STREAM), **plan))
    assert len(seen) == 20
    assert tally.counts["offered"] == tally.counts["good"] == 10


def test_an_answer_that_breaks_off_is_lost_and_one_that_is_late_is_not_good() -> None:
    async def broken(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + chunked(TOKEN))
        writer.close()

    tally, _ = asyncio.run(served(broken, phases=phase(20, 0.1), arrival="constant"))
    assert tally.reasons == {"connection lost midway": 2}
    clock = MonotonicClock()

    async def slow(number: int, writer: asyncio.StreamWriter) -> None:
        await clock.sleep(0.05)
        writer.write(WHOLE_STREAM)

    tally, _ = asyncio.run(served(slow, phases=phase(20, 0.1), arrival="constant", deadline_s=0.02))
    assert tally.counts["late"] == 2


def test_whole_answers_need_a_finish() -> None:
    whole = {"choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}]}
    plan = {"phases": phase(20, 0.1), "arrival": "constant", "stream": False, "output": Lengths(low=8, high=8)}
    tally, _ = asyncio.run(served(always(page(200, whole)), **plan))
    assert tally.counts["good"] == 2
    tally, _ = asyncio.run(served(always(page(200, {"choices": []})), **plan))
    assert tally.reasons == {"an answer without a finish": 2}


def test_the_verb_measures_a_real_site_and_draws_it(site: Callable[..., Site], tmp_path: Path) -> None:
    """Three times what two replicas of two slots can do: some are answered, some refused by name, nothing is lost."""
    one = site(replica={"count": 2, "slots": 2, "token_ms": 10.0})
    one.wait_ready()
    report, picture = tmp_path / "load.json", tmp_path / "load.svg"
    words = ["--rate", "120", "--duration", "3", "--output-tokens", "8-12", "--deadline", "1", "--processes", "2"]
    done = one.run("load", one.url, *words, "--tenants", "a::2,b", "--json", str(report), "--plot", str(picture))
    assert report.exists(), done.stderr
    found = json.loads(report.read_text())
    counts = found["counts"]
    assert counts["offered"] == 360 == sum(counts[word] for word in ("good", "late", "refused", "errored", "gave_up"))
    assert counts["good"] >= 40
    assert counts["refused"] >= 40
    assert counts["errored"] == 0, found["refusals"]
    assert {client["name"] for client in found["clients"]} == {"a", "b"}
    assert found["times_ms"]["ttft"]["count"] >= counts["good"]
    assert "requests were answered well" in done.stdout
    assert picture.read_bytes().startswith(b"<?xml")


def test_the_verb_says_what_is_wrong_with_its_words(site: Callable[..., Site]) -> None:
    one = Site.__new__(Site)
    wrong = Site.run(one, "load", "http://127.0.0.1:9/v1", "--model", "m", "--prompt-tokens", "many")
    assert wrong.returncode == 2
    assert "'many' is no length" in wrong.stderr
    nobody = Site.run(one, "load", "http://127.0.0.1:9/v1")
    assert nobody.returncode == 1
    assert "is it there?" in nobody.stderr
