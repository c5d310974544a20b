"""The transports against a desk without sockets: every decision, in virtual time, blocking and asyncio alike."""

import asyncio
import json
from collections.abc import Callable

import httpx
import pytest
from desk import ALL, NAME, PATH, WHOLE, Cut, Desk, Turned, Wire, refusal, told
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.client import AnswerLost, AsyncResumingTransport, Patience, ResumingTransport
from holdfast.sim import clock as virtual

URL = "http://desk/v1/chat/completions"
STREAMED = {"model": "m", "messages": [], "stream": True}
WHOLLY = {"model": "m", "messages": []}
Ask = Callable[..., httpx.Response]


def blocking(wire: Wire, body: dict[str, object], patience: Patience | None = None, **more: object) -> httpx.Response:
    transport = ResumingTransport(wire, patience or Patience(), Turned())
    with httpx.Client(transport=transport) as client:
        return client.post(URL, json=body, **more)


def asynchronous(
    wire: Wire, body: dict[str, object], patience: Patience | None = None, **more: object
) -> httpx.Response:
    async def story() -> httpx.Response:
        transport = AsyncResumingTransport(wire, patience or Patience(), virtual.VirtualClock())
        async with httpx.AsyncClient(transport=transport) as client:
            return await client.post(URL, json=body, **more)

    return virtual.run(story())


both = pytest.mark.parametrize("ask", [blocking, asynchronous])
CUTS = st.builds(
    Cut,
    st.none() | st.integers(0, len(ALL)),
    st.sampled_from([httpx.ReadError, httpx.RemoteProtocolError, httpx.ConnectError, httpx.ReadTimeout]),
    st.sampled_from([1, 7, 100, 1 << 16]),
)


@both
@settings(max_examples=150, deadline=None)
@given(cuts=st.lists(CUTS, max_size=6))
def test_wherever_connections_are_cut_the_joined_text_is_exact(ask: Ask, cuts: list[Cut]) -> None:
    wire = Wire(Desk(), list(cuts))
    assert ask(wire, STREAMED).content == told(ALL)
    assert len({one.headers["idempotency-key"] for one in wire.requests if one.method == "POST"}) == 1
    assert all(body.closed for body in wire.bodies[:-1])


@both
@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(CUTS, max_size=6))
def test_wherever_connections_are_cut_a_whole_answer_is_whole(ask: Ask, cuts: list[Cut]) -> None:
    wire = Wire(Desk(), list(cuts))
    assert ask(wire, WHOLLY).content == WHOLE
    assert {one.method for one in wire.requests} == {"POST"}
    assert len({one.headers["idempotency-key"] for one in wire.requests}) == 1


@both
def test_a_cut_at_every_byte_leaves_no_trace(ask: Ask) -> None:
    for cut in range(len(ALL) + 1):
        wire = Wire(Desk(), [Cut(cut)])
        assert ask(wire, STREAMED).content == told(ALL), f"cut after {cut} bytes"


@both
def test_a_stream_is_resumed_by_its_name_from_the_last_id_with_the_callers_key(ask: Ask) -> None:
    wire = Wire(Desk(), [Cut(ALL.index(b'"fast "') + 5)])
    answer = ask(wire, STREAMED, headers={"authorization": "Bearer k", "x-tenant": "t"})
    first, second = wire.requests
    assert answer.content == told(ALL) and answer.headers["x-holdfast-answer"] == NAME
    assert (first.headers["x-holdfast-resume"], first.headers["accept-encoding"]) == ("yes", "identity")
    assert (second.method, second.url.path, second.headers["last-event-id"]) == ("GET", PATH, "4")
    assert (second.headers["authorization"], second.headers["x-tenant"]) == ("Bearer k", "t")
    assert "idempotency-key" not in second.headers and "content-length" not in second.headers


@both
def test_a_proxys_prefix_stays(ask: Ask) -> None:
    wire = Wire(Desk(), [Cut(0)])
    transport = ResumingTransport(wire, Patience(), Turned())
    with httpx.Client(transport=transport) as client:
        client.post("http://desk/llm/v1/chat/completions?site=1", json=STREAMED)
    assert str(wire.requests[1].url) == f"http://desk/llm/v1/streams/{NAME}?site=1"


@both
def test_an_answer_that_nobody_knows_and_that_had_not_begun_is_asked_for_once_more(ask: Ask) -> None:
    """It waited for its turn when its worker died. The desk knows no streams below /llm, as a new worker would not."""
    wire = Wire(Desk(), [Cut(0)])
    with httpx.Client(transport=ResumingTransport(wire, Patience(), Turned())) as client:
        told = client.post("http://desk/llm/v1/chat/completions", json=STREAMED).text
    undisturbed = Wire(Desk())
    with httpx.Client(transport=ResumingTransport(undisturbed, Patience(), Turned())) as client:
        assert told == client.post("http://desk/llm/v1/chat/completions", json=STREAMED).text
    assert [one.method for one in wire.requests] == ["POST", "GET", "POST"]
    assert len({one.headers["idempotency-key"] for one in wire.requests if one.method == "POST"}) == 1


@both
def test_an_answer_that_had_begun_and_that_nobody_knows_is_lost_and_said_to_be(ask: Ask) -> None:
    wire = Wire(Desk(), [Cut(600)])
    with httpx.Client(transport=ResumingTransport(wire, Patience(), Turned())) as client, pytest.raises(AnswerLost):
        client.post("http://desk/llm/v1/chat/completions", json=STREAMED)


@both
def test_the_callers_own_key_is_kept(ask: Ask) -> None:
    wire = Wire(Desk(), [Cut(None), Cut(None, httpx.ConnectError)])
    ask(wire, WHOLLY, headers={"Idempotency-Key": "mine"})
    assert [one.headers["idempotency-key"] for one in wire.requests] == ["mine"] * 3


@both
def test_two_requests_have_two_keys(ask: Ask) -> None:
    wire = Wire(Desk())
    ask(wire, WHOLLY)
    ask(wire, WHOLLY)
    assert wire.requests[0].headers["idempotency-key"] != wire.requests[1].headers["idempotency-key"]


@both
@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 429, 500, 503])
def test_a_refusal_is_passed_on_untouched_and_once(ask: Ask, status: int) -> None:
    wire = Wire(Desk(refusals=[refusal(status, "some_code")]))
    answer = ask(wire, STREAMED)
    assert (answer.status_code, answer.json()["error"]["code"], len(wire.requests)) == (status, "some_code", 1)


@both
def test_an_answer_that_another_worker_is_about_to_have_is_asked_for_again(ask: Ask) -> None:
    early = [refusal(409, code) for code in ("answer_taken_over", "idempotency_in_progress")]
    wire = Wire(Desk(refusals=[*early, None, refusal(503, "overloaded")]), [None, None, Cut(3)])
    assert ask(wire, STREAMED).content == told(ALL)
    assert [one.method for one in wire.requests] == ["POST", "POST", "POST", "GET", "GET"]


@both
def test_an_error_in_the_stream_is_its_end(ask: Ask) -> None:
    error = b'data: {"error":{"message":"late","code":"deadline_exceeded"}}\n\n'
    desk = Desk()
    wire = Wire(desk, [Cut(len(error))])
    broken = desk.reply
    desk.reply = lambda asked: _with_body(broken(asked), error)
    assert ask(wire, STREAMED).content == error
    assert len(wire.requests) == 1


def _with_body(reply, body: bytes):
    reply.body = body + b"never read"
    return reply


@both
def test_patience_ends_and_the_last_error_is_the_callers(ask: Ask) -> None:
    wire = Wire(Desk(), [Cut(None, httpx.ConnectError)] * 10_000)
    with pytest.raises(httpx.ConnectError, match="cut"):
        ask(wire, STREAMED, Patience(patience_s=3.0))
    assert 8 <= len(wire.requests) <= 30


@both
def test_patience_counts_from_the_last_event(ask: Ask) -> None:
    ends = [ALL.index(mark) + len(mark) for mark in (b"\n\n", b'"Hm."}, "finish_reason": null}]}\n\n')]
    lost = [Cut(None, httpx.ConnectError)] * 3
    cuts = [Cut(ends[0]), *lost, Cut(ends[1]), *lost, Cut(200), *lost]
    wire = Wire(Desk(), cuts)
    assert ask(wire, STREAMED, Patience(patience_s=0.05)).content == told(ALL)


@both
def test_what_is_lost_for_good_is_told_with_its_name(ask: Ask) -> None:
    wire = Wire(Desk(refusals=[None, refusal(404, "stream_not_found")]), [Cut(ALL.index(b"id: 4"))])
    with pytest.raises(AnswerLost) as told_:
        ask(wire, STREAMED)
    sentence = str(told_.value)
    assert sentence.startswith(f"answer {NAME} broke off after event 3 and can't be resumed: the site answered 404")
    assert f"GET {PATH}" in sentence


@both
def test_a_site_that_does_not_come_back_is_told_so(ask: Ask) -> None:
    wire = Wire(Desk(), [Cut(0), *[Cut(None, httpx.ConnectError)] * 1000])
    with pytest.raises(AnswerLost, match="broke off before its first event and can't be resumed: cut") as told_:
        ask(wire, STREAMED, Patience(patience_s=2.0))
    assert isinstance(told_.value.__cause__, httpx.ConnectError)


@both
def test_without_a_journal_a_broken_stream_is_the_callers_as_ever(ask: Ask) -> None:
    wire = Wire(Desk(resume="off; the journal has no room"), [Cut(300)])
    with pytest.raises(httpx.ReadError, match="cut"):
        ask(wire, STREAMED)
    assert len(wire.requests) == 1


@both
def test_stalls_are_no_losses_and_end_with_the_callers_own_limit(ask: Ask) -> None:
    wire = Wire(Desk(), [Cut(None, httpx.ReadTimeout)] * 3)
    assert ask(wire, STREAMED, Patience(patience_s=0.001, stall_s=2.0), timeout=60).content == told(ALL)
    limits = [one.extensions["timeout"]["read"] for one in wire.requests]
    assert limits == [2.0, 4.0, 8.0, 16.0]
    wire = Wire(Desk(), [Cut(None, httpx.ReadTimeout)] * 3)
    with pytest.raises(httpx.ReadTimeout):
        ask(wire, STREAMED, Patience(stall_s=2.0), timeout=0)


@both
def test_what_repeating_could_harm_or_not_help_is_not_repeated(ask: Ask) -> None:
    for error in (httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.LocalProtocolError):
        wire = Wire(Desk(), [Cut(None, error)])
        with pytest.raises(error):
            ask(wire, STREAMED)
        assert len(wire.requests) == 1
    wire = Wire(Desk(), [Cut(None)])
    with (
        httpx.Client(transport=ResumingTransport(wire, Patience(), Turned())) as client,
        pytest.raises(httpx.ReadError),
    ):
        client.delete(URL)


def test_waits_double_from_milliseconds_to_half_a_second_and_differ_from_key_to_key() -> None:
    seen = []
    for _ in range(2):
        clock, wire = Turned(), Wire(Desk(), [Cut(None)] * 12)
        with httpx.Client(transport=ResumingTransport(wire, Patience(), clock)) as client:
            client.post(URL, json=WHOLLY)
        tops = [min(0.005 * 2**n, 0.5) for n in range(12)]
        assert all(top / 2 <= rest <= top for rest, top in zip(clock.rests, tops, strict=True))
        seen.append(clock.rests)
    assert seen[0] != seen[1]


def test_an_answer_that_is_not_holdfasts_is_let_through_as_it_comes() -> None:
    desk = Desk()
    wire = Wire(desk, [Cut(100)])
    kept = desk.reply

    def strange(asked):
        reply = kept(asked)
        reply.headers = {"content-type": "text/event-stream"}
        return reply

    desk.reply = strange
    with pytest.raises(httpx.ReadError):
        blocking(wire, STREAMED)
    assert len(wire.requests) == 1


def test_a_caller_who_leaves_closes_the_connection() -> None:
    wire = Wire(Desk(), [Cut(0), Cut(500, piece=50)])
    with httpx.Client(transport=ResumingTransport(wire, Patience(), Turned())) as client:
        with client.stream("POST", URL, json=STREAMED) as answer:
            next(answer.iter_raw())
        assert [body.closed for body in wire.bodies] == [True, True]
        assert json.loads(client.post(URL, json=WHOLLY).content)["choices"]


def test_a_cancelled_task_closes_the_connection() -> None:
    async def story() -> list[bool]:
        wire = Wire(Desk(), [Cut(200), *[Cut(None, httpx.ConnectError)] * 1000])
        transport = AsyncResumingTransport(wire, Patience(), virtual.VirtualClock())
        async with httpx.AsyncClient(transport=transport) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2):
                    await client.post(URL, json=STREAMED)
        return [body.closed for body in wire.bodies]

    assert virtual.run(story()) == [True]
