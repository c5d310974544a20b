"""The schedule of a load, its distributions, and the sums that are made of what it saw."""

import itertools
from io import StringIO
from math import log
from pathlib import Path
from random import Random
from statistics import fmean, median, pstdev

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from holdfast.drill.load_line import Asked, reason_of, status_in
from holdfast.drill.load_plan import (
    Arrival,
    Client,
    Due,
    Lengths,
    Phase,
    Plan,
    arrivals,
    clients_of,
    lengths_of,
    phases_of,
    schedule,
)
from holdfast.drill.load_plot import plot
from holdfast.drill.load_report import drawn, report_of
from holdfast.drill.load_tally import GAVE_UP, GOOD, LATE, REFUSED, Tally
from holdfast.drill.load_words import Words, address_of


def plan(**more: object) -> Plan:
    return msgspec.convert({"url": "http://127.0.0.1:1/v1", "phases": (Phase(10, 10),), **more}, Plan)


def test_constant_arrivals_are_even_and_phases_follow_one_another() -> None:
    due = arrivals((Phase(10, 1), Phase(2, 1)), "constant", Random(1))
    assert list(due) == pytest.approx([*(n / 10 for n in range(10)), 1.0, 1.5])


def test_poisson_arrivals_have_exponential_gaps_and_keep_their_number() -> None:
    due = list(arrivals((Phase(1000, 20),), "poisson", Random(7)))
    assert len(due) == 20_000
    assert due == sorted(due)
    assert due[0] > 0 and due[-1] < 20
    gaps = [b - a for a, b in itertools.pairwise(due)]
    assert fmean(gaps) == pytest.approx(0.001, rel=0.01)
    assert pstdev(gaps) == pytest.approx(0.001, rel=0.03)  # as wide as they are long: exponential
    assert median(gaps) == pytest.approx(0.001 * log(2), rel=0.03)


@given(rate=st.floats(0, 500), seconds=st.floats(0.01, 5), seed=st.integers(0, 99))
def test_any_phase_has_its_number_within_its_time(rate: float, seconds: float, seed: int) -> None:
    kinds: tuple[Arrival, ...] = ("poisson", "constant")
    for kind in kinds:
        due = arrivals((Phase(1, 1), Phase(rate, seconds)), kind, Random(seed))
        assert len(due) == 1 + round(rate * seconds)
        assert all(at >= 0 for at in due)
        assert all(1 <= at <= 1 + seconds + 1 / max(rate, 1e-9) for at in due[1:])


def test_one_seed_gives_one_schedule_and_shares_are_kept() -> None:
    asked = plan(
        phases=(Phase(1000, 4),),
        clients=(Client("a", "", 3.0), Client("b", "", 1.0)),
        prompt=Lengths("uniform", 10, 20),
        output=Lengths("lognormal", 100, 100, 0.5),
    )
    first, again, other = schedule(asked), schedule(asked), schedule(msgspec.structs.replace(asked, seed=2))
    assert first == again
    assert [one.at for one in first] != [one.at for one in other]
    assert len(first) == len(other) == 4000
    assert sum(one.client == 0 for one in first) == pytest.approx(3000, abs=120)
    assert {one.prompt_tokens for one in first} == set(range(10, 21))
    assert median(one.output_tokens for one in first) == pytest.approx(100, rel=0.05)


def test_lengths_are_read_and_drawn() -> None:
    random = Random(1)
    assert {lengths_of("7").draw(random) for _ in range(20)} == {7}
    assert {lengths_of("1-3").draw(random) for _ in range(99)} == {1, 2, 3}
    drawn_ones = [lengths_of("lognormal:200:1").draw(random) for _ in range(4000)]
    assert median(drawn_ones) == pytest.approx(200, rel=0.1)
    assert pstdev([log(one) for one in drawn_ones]) == pytest.approx(1, rel=0.1)
    assert min(drawn_ones) >= 1


@pytest.mark.parametrize("text", ["", "many", "0", "9-3", "3:4", "lognormal:5", "lognormal:5:9", "-4", "2000000"])
def test_what_is_no_length_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError, match="length"):
        lengths_of(text)


def test_tenants_and_rates_are_read() -> None:
    assert clients_of("acme:key-1:3,beta:key-2,gamma") == (
        Client("acme", "key-1", 3.0),
        Client("beta", "key-2", 1.0),
        Client("gamma", "", 1.0),
    )
    assert phases_of("100", 30) == (Phase(100, 30),)
    assert phases_of("200:60,50:30", 5) == (Phase(200, 60), Phase(50, 30))
    for wrong in (":key", "a:b:c:d", "a:b:0", "a:b:x"):
        with pytest.raises(ValueError, match=r"tenant|share"):
            clients_of(wrong)
    for wrong in ("x", "-1", "10:0", "10:x"):
        with pytest.raises(ValueError, match="rate"):
            phases_of(wrong, 10)


def test_addresses_and_requests() -> None:
    assert address_of("127.0.0.1:8000").geturl() == "http://127.0.0.1:8000/v1"
    with pytest.raises(ValueError, match="without TLS"):
        address_of("https://example.org/v1")
    words = Words(
        plan(model='100%"', clients=(Client("a", "k"),), full_length=False, tell_deadline=False, deadline_s=2.0), 5
    )
    asked = words.request(Due(0.0, 17, 0, 5, 9))
    head, _, body = asked.partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head
    assert b"x-holdfast" not in head
    sent = msgspec.json.decode(body)
    assert sent["model"] == '100%"'
    assert sent["max_tokens"] == 9
    assert "ignore_eos" not in sent
    assert sent["messages"][0]["content"].split()[0] == "17"
    assert len(sent["messages"][0]["content"].split()) == 5


def ended(number: int, due_at: float, took: float, first: float = 0.0, **more: object) -> Asked:
    asked = Asked(Due(due_at, number, 0, 1, 1), 100 + due_at, 100 + due_at)
    asked.ended, asked.first = 100 + due_at + took, 100 + due_at + first if first else 0.0
    for name, value in more.items():
        setattr(asked, name, value)
    return asked


def test_percentiles_are_those_of_all_processes_together() -> None:
    tallies = [Tally(), Tally()]
    for number in range(1000):
        tally = tallies[number % 2]
        tally.offer(number / 100, "a")
        asked = ended(number, number / 100, (number + 1) / 1000, first=0.0005)
        tally.attempt(asked)
        tally.end(asked, GOOD, "a", 100.0)
    total = Tally()
    for tally in tallies:
        total.add(msgspec.json.decode(msgspec.json.encode(tally.sheet()), type=type(tally.sheet())))
    found = total.percentiles_ms("latency")
    assert found["count"] == 1000
    for percent in (50, 90, 99):
        assert found[f"p{percent}"] == pytest.approx(percent * 10, rel=0.002)
    assert found["max"] == pytest.approx(1000, rel=0.002)
    assert [one.offered for one in total.seconds[:10]] == [100] * 10
    assert sum(one.ended_good for one in total.seconds) == 1000
    assert total.percentiles_ms("refusal") == {"count": 0}


def test_a_report_tells_rates_refusals_and_its_own_lateness(tmp_path: Path) -> None:
    tally = Tally()
    for number in range(100):
        at = number / 10
        tally.offer(at, "a")
        tally.time("lag", 0.03)
        if number % 2:
            asked, word = ended(number, at, 0.2, first=0.1), GOOD
        else:
            asked, word = ended(number, at, 0.004, status=503, reason="503 queue_wait"), REFUSED
        tally.attempt(asked)
        tally.end(asked, word, "a", 100.0)
    late, gone = ended(0, 0.0, 3.0, first=1.0), ended(1, 0.0, 2.0)
    for asked, word in ((late, LATE), (gone, GAVE_UP)):
        tally.offer(0.0, "a")
        tally.end(asked, word, "a", 100.0)
    report = report_of(plan(), tally, 2)
    assert report.goodput_s == pytest.approx(5.0)
    assert report.steady_goodput_s == pytest.approx(5.0)
    assert report.refusals == {"503 queue_wait": 50}
    assert report.times_ms["ttft"]["max"] == pytest.approx(2000, rel=0.01)  # who gave up had waited so long
    assert report.late
    assert "the load itself was late by 30 ms" in report.verdict()
    console = Console(width=120, record=True, file=StringIO())
    console.print(drawn(report))
    assert "503 queue_wait" in console.export_text()
    plot(report, tmp_path / "load.svg")
    picture = (tmp_path / "load.svg").read_text()
    assert picture.startswith("<?xml")
    assert len(picture) > 10_000
    assert msgspec.json.decode(msgspec.json.encode(report))["counts"]["offered"] == 102


def test_error_pages_name_their_limit_or_code() -> None:
    assert (
        reason_of(503, b'{"error":{"message":"x","code":"overloaded","limit":{"name":"queue_wait"}}}')
        == "503 queue_wait"
    )
    assert reason_of(429, b'{"error":{"message":"x","code":"rate_limit_exceeded"}}') == "429 rate_limit_exceeded"
    assert reason_of(500, b'{"error":"text"}') == "500 text"
    assert reason_of(502, b"<html>") == "502 no reason given"
    assert status_in(b'{"error":{"code":"overloaded"}}') == 503
    assert status_in(b'{"error":{"code":"engine_lost"}}') == 500
    assert status_in(b"{") == 500
