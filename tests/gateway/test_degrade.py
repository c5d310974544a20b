"""The ladder in several workers, and what its rungs do to requests at a real door."""

from random import Random

import pytest
from doorway import CARD, PEARL, HandClock, Says, chat_body, doorway, ids_of, run
from msgspec import structs

from holdfast.domain.board import WorkerView
from holdfast.domain.dialect import Message, ThinkingEnd
from holdfast.domain.event import RungChanged
from holdfast.domain.fault import BadRequest, EngineLost, Expired
from holdfast.domain.tenant import Limits
from holdfast.gateway.degrade import Cut, Cuts, Degrader
from holdfast.gateway.needs import Needs, Smaller
from holdfast.policy.continuation import promise


class Clock:
    def __init__(self):
        self.at = 0.0

    def now(self):
        return self.at

    async def sleep(self, seconds):
        raise AssertionError("nobody sleeps here")


class Workers:
    """Workers whose views lie on one board. Each answers a hundred requests a second; `failing` says how many of them badly."""

    def __init__(self, *names, **options):
        self.clock, self.views, self.events = Clock(), {}, []
        self.failing = dict.fromkeys(names, 0)
        self.options = options
        self.degraders = {name: self.degrader(name) for name in names}

    def degrader(self, name):
        return Degrader(worker=name, told=self.told, clock=self.clock, emit=self.events.append, **self.options)

    def told(self):
        return list(self.views.values())

    def pass_s(self, seconds, frozen=()):
        for _ in range(round(seconds * 10)):
            self.clock.at = round(self.clock.at + 0.1, 1)
            for name, one in self.degraders.items():
                if name in frozen:
                    continue
                before = self.views.get(name, WorkerView(worker=name))
                failed = round(self.clock.at * self.failing[name] / 1) if self.failing[name] else before.failed
                self.views[name] = WorkerView(
                    worker=name,
                    at=self.clock.at,
                    answered=before.answered + 10,
                    failed=max(before.failed, failed),
                    rung=one.rung,
                    rung_why=one.why,
                )
            for name, one in self.degraders.items():
                if name not in frozen:
                    one.look()

    def rungs(self):
        return [one.rung for one in self.degraders.values()]


def test_errors_of_one_worker_put_all_workers_on_one_rung_and_one_of_them_says_so():
    site = Workers("gateway-0.a", "gateway-1.b")
    site.failing["gateway-1.b"] = 20  # a tenth of all answers
    site.pass_s(8)
    assert site.rungs()[0] == site.rungs()[1] > 0
    assert {one.why for one in site.degraders.values()} == {site.degraders["gateway-0.a"].why}
    first = site.events[0]
    assert isinstance(first, RungChanged)
    assert (first.before, first.after, first.name) == (0, 1, "shorter answers")
    assert "of the last" in first.why
    assert len(site.events) == site.rungs()[0]  # every step told once


def test_who_decides_dies_and_the_next_goes_on_from_the_same_rung():
    site = Workers("gateway-0.a", "gateway-1.b")
    site.failing["gateway-1.b"] = 20
    site.pass_s(8)
    rung, told = site.rungs()[0], len(site.events)
    site.failing["gateway-1.b"] = 0
    del site.degraders["gateway-0.a"], site.views["gateway-0.a"]
    site.pass_s(1)
    assert site.rungs() == [rung]
    site.pass_s(40)
    assert site.rungs() == [0]
    assert [(one.before, one.after) for one in site.events[told:]] == [(n, n - 1) for n in range(rung, 0, -1)]


def test_a_worker_that_has_just_come_takes_the_rung_over_though_it_is_the_first_by_name():
    site = Workers("gateway-1.b")
    site.failing["gateway-1.b"] = 20
    site.pass_s(8)
    rung, told = site.rungs()[0], len(site.events)
    assert rung > 0
    site.failing["gateway-0.a"] = 0
    site.degraders["gateway-0.a"] = site.degrader("gateway-0.a")
    site.pass_s(0.3)
    assert site.rungs() == [rung, rung]
    assert all(one.after >= one.before for one in site.events[told:])


def test_a_frozen_worker_does_not_decide():
    site = Workers("gateway-0.a", "gateway-1.b")
    site.pass_s(1)
    site.failing["gateway-1.b"] = 20
    site.pass_s(8, frozen=("gateway-0.a",))
    assert site.degraders["gateway-1.b"].rung > 0
    site.pass_s(0.5)  # it wakes up, and follows before it leads again
    assert site.rungs()[0] == site.rungs()[1] > 0


def test_switched_off_nothing_is_ever_given_up():
    site = Workers("gateway-0.a", on=False)
    site.failing["gateway-0.a"] = 50
    site.pass_s(20)
    assert site.rungs() == [0]
    assert site.events == []


def at_rung(rung, **options):
    found = Degrader(
        worker="gateway-0", told=list, clock=Clock(), emit=lambda event: None, cuts=Cuts(100, 40), **options
    )
    found.rung, found.why = rung, "errors"
    return found


@pytest.mark.parametrize(
    ("rung", "max_tokens", "thinks", "cut"),
    [
        (0, 500, True, Cut(500, 0, "")),
        (1, 500, True, Cut(100, 0, "max_tokens=100")),
        (1, 100, True, Cut(100, 0, "")),
        (2, 500, True, Cut(100, 40, "max_tokens=100, thinking_tokens=40")),
        (2, 500, False, Cut(100, 0, "max_tokens=100")),
        (2, 60, True, Cut(60, 40, "thinking_tokens=40")),
        (2, 40, True, Cut(40, 0, "")),
        (5, 500, True, Cut(100, 40, "max_tokens=100, thinking_tokens=40")),
    ],
)
def test_what_a_rung_cuts(rung, max_tokens, thinks, cut):
    assert at_rung(rung).cut(max_tokens, thinks) == cut


def test_what_was_cut_is_counted():
    degrader = at_rung(2)
    degrader.cut(500, True)
    degrader.cut(500, False, "tiny")
    assert degrader.counts == {"max_tokens": 2, "thinking_tokens": 1, "model": 1}


SHEDDABLE = "no request of a priority below 0 is served while the site stands on rung 3, sheddable refused"


@pytest.mark.parametrize(
    ("rung", "limits", "priority", "why"),
    [
        (2, Limits(), -5, ""),
        (3, Limits(), -1, SHEDDABLE),
        (3, Limits(), 0, ""),
        (3, Limits(memory_min=0.1), -1, SHEDDABLE),
        (4, Limits(), 0, ""),
        (5, Limits(), 3, "only tenants with a reservation are served while the site stands on rung 5, reserved only"),
        (5, Limits(memory_min=0.1), 0, ""),
    ],
)
def test_whom_a_rung_refuses(rung, limits, priority, why):
    assert at_rung(rung).refuses(limits, priority) == why


def test_who_is_sent_to_the_smaller_model():
    degrader = at_rung(4, reserved=lambda tenant: tenant == "bank", smaller_serves=lambda: True)
    assert degrader.to_smaller("anybody")
    assert not degrader.to_smaller("bank")
    assert not at_rung(4).to_smaller("anybody")  # it does not serve
    assert not at_rung(3, smaller_serves=lambda: True).to_smaller("anybody")


# at the door

THINKS = {"thinking": {"type": "enabled"}}


def asked(service, body, rung=2, **needs):
    """One request at a door on that rung: the answer."""

    async def story():
        async with doorway(service, degrader=at_rung(rung), **needs) as place, place.client() as client:
            return await client.ask(body)

    return run(story())


def test_an_answer_that_was_cut_says_so_and_the_generation_carries_the_bounds():
    service = Says()
    answer = asked(service, chat_body(max_tokens=500, **THINKS))
    assert answer.headers["x-holdfast-degraded"] == "max_tokens=100, thinking_tokens=40"
    assert (service.asked[0].max_tokens, service.asked[0].thinking_max) == (100, 40)
    stream = asked(Says(), chat_body(max_tokens=500, stream=True, **THINKS))
    assert stream.headers["x-holdfast-degraded"] == "max_tokens=100, thinking_tokens=40"


def test_an_answer_that_was_not_cut_says_nothing():
    service = Says()
    answer = asked(service, chat_body(max_tokens=30))
    assert "x-holdfast-degraded" not in answer.headers
    assert (service.asked[0].max_tokens, service.asked[0].thinking_max) == (30, 0)


def never(body, service, value="never", **needs):
    async def story():
        async with doorway(service, degrader=at_rung(4), **needs) as place, place.client() as client:
            return await client.ask(body, x_holdfast_degrade=value)

    return run(story())


def test_who_says_never_gets_the_whole_answer():
    service = Says()
    answer = never(chat_body(max_tokens=500, **THINKS), service)
    assert answer.status == 200
    assert "x-holdfast-degraded" not in answer.headers
    assert (service.asked[0].max_tokens, service.asked[0].thinking_max) == (500, 0)
    wrong = never(chat_body(), Says(), "sometimes")
    assert (wrong.status, wrong.error["param"]) == (400, "x-holdfast-degrade")


class Beside:
    """A door on rung 4 with a smaller model beside it, whose context is short."""

    def __init__(self, room=True):
        self.main, self.small, self.room, self.asked = Says("I am large."), Says("I am small."), room, []
        card = structs.replace(CARD, name="tiny", context_tokens_max=40, aliases=((CARD.name, False), *CARD.aliases))
        needs = Needs(
            service=self.small,
            dialect=PEARL,
            card=lambda: card,
            contract=promise,
            ready=lambda: (True, ""),
            clock=HandClock(),
            unix_s=lambda: 7.0,
            bits=Random(1).getrandbits,
            emit=lambda event: None,
            degrader=at_rung(4),
            stands_in="tiny",
        )
        self.smaller = Smaller(needs, self.takes)

    def takes(self, who):
        self.asked.append(who.tenant)
        return self.room and not who.never_degrade

    def ask(self, body, **headers):
        async def story():
            async with doorway(self.main, degrader=at_rung(4), smaller=self.smaller) as place, place.client() as client:
                return await client.ask(body, **headers)

        return run(story())


def test_the_smaller_model_answers_under_its_own_name_and_is_not_kept():
    site = Beside()
    answer = site.ask(chat_body(max_tokens=20))
    assert answer.headers["x-holdfast-degraded"] == "model=tiny"
    assert answer.headers["x-holdfast-resume"] == "off; answers of the smaller model are not kept"
    assert (answer.json["model"], answer.json["choices"][0]["message"]["content"]) == ("tiny", "I am small.")
    stream = Beside().ask(chat_body(max_tokens=20, stream=True))
    assert stream.headers["x-holdfast-degraded"] == "model=tiny"
    assert stream.events()[0]["model"] == "tiny"
    assert site.asked == [""]


@pytest.mark.parametrize(
    ("room", "text", "headers"),
    [(False, "Hi", {}), (True, "Hi", {"x_holdfast_degrade": "never"}), (True, "much too long for it " * 20, {})],
)
def test_the_sites_own_model_answers_what_the_smaller_one_has_no_room_for_or_may_not(room, text, headers):
    site = Beside(room)
    answer = site.ask(chat_body(text, max_tokens=20), **headers)
    assert (answer.json["model"], answer.json["choices"][0]["message"]["content"]) == ("pearl", "I am large.")
    assert site.small.asked == []
    assert "model=" not in answer.headers.get("x-holdfast-degraded", "")


def test_a_request_that_is_wrong_for_both_is_told_so_by_the_sites_own_model():
    answer = Beside().ask({**chat_body(), "model": "gpt-4"})
    assert answer.status == 404
    assert answer.error["message"] == (
        "The model 'gpt-4' does not exist here; there is: pearl, deepseek-chat, deepseek-reasoner."
    )


@pytest.mark.parametrize(("fault", "failed"), [(EngineLost("gone"), 1), (Expired("late"), 0), (BadRequest("no"), 0)])
def test_the_door_counts_what_we_failed(fault, failed):
    async def story():
        for fault_after, stream in ((0, False), (0, True), (1, True)):
            async with doorway(Says(fault=fault, fault_after=fault_after)) as place:
                await place.chat(stream=stream)
                assert (place.door.tally.answers, place.door.tally.answers_failed) == (failed, failed)
        async with doorway(Says()) as place:
            await place.chat()
            await place.chat(stream=True)
            await place.chat(stop="el")  # the door ends this one itself
            assert (place.door.tally.answers, place.door.tally.answers_failed) == (3, 0)

    run(story())


def test_thinking_ends_are_told_by_the_dialect():
    mark = ids_of("</think>")[0]
    asked = [Message("user", "Hi")]
    assert PEARL.thinking_end(PEARL.render(asked, [], True, False)) == ThinkingEnd(mark, (mark,))
    assert PEARL.thinking_end(PEARL.render(asked, [], False, False)) is None
