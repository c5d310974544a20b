"""Several choices of one answer: one stream or body, one fate, each a generation of its own."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import pytest
from doorway import Answer, HandClock, chat_body, doorway, ids_of, request, run
from test_door_resume import desk

from holdfast.domain.fault import EngineLost, Overloaded
from holdfast.domain.request import Chunk, Finish, Generation, TokenLogprob
from holdfast.gateway.ordering import seed_below
from holdfast.sim.shelf import SimShelves


@dataclass
class Each:
    """Gives each generation, in the order in which they come, a text of its own. `fails` and `holds` are numbers of choices."""

    texts: tuple[str, ...] = ("one", "two words", "three more words")
    fails: int = -1
    holds: int = -1
    asked: list[Generation] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    fault: Exception = field(default_factory=lambda: EngineLost("moved too often"))

    async def __call__(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        number = len(self.asked)
        self.asked.append(generation)
        try:
            if number == self.fails:
                raise self.fault
            for i, token in enumerate(ids_of(self.texts[number % len(self.texts)])):
                rows = [TokenLogprob(token, -0.25)] if generation.sampling.logprobs >= 0 else None
                yield Chunk([token], logprobs=rows, cached_tokens=3 if i == 0 else 0, moves=number)
                if number == self.holds:
                    self.held.set()
                    await asyncio.Event().wait()
                await asyncio.sleep(0)
            yield Chunk([], finish=Finish.LENGTH if number == 1 else Finish.STOP, moves=number)
        finally:
            self.closed.append(number)


def ask(service: Any, **fields: Any) -> Answer:
    async def story() -> Answer:
        async with doorway(service) as place:
            answer = await place.chat(**fields)
            for _ in range(20):
                await asyncio.sleep(0)
            assert place.door.tally.in_flight == place.door.tally.streams == 0
            return answer

    return run(story())


def test_each_choice_has_its_index_its_finish_and_its_own_seed() -> None:
    each = Each()
    answer = ask(each, n=3, seed=11, logprobs=True)
    rows = answer.json["choices"]
    assert [row["index"] for row in rows] == [0, 1, 2]
    assert [row["message"]["content"] for row in rows] == list(each.texts)
    assert [row["finish_reason"] for row in rows] == ["stop", "length", "stop"]
    counts = [len(ids_of(text)) for text in each.texts]
    assert [len(row["logprobs"]["content"]) for row in rows] == counts
    seeds = [one.seed for one in each.asked]
    assert seeds == [11, seed_below(11, 1), seed_below(11, 2)] and len(set(seeds)) == 3
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    assert len({one.id for one in each.asked}) == 3 and len({tuple(one.prompt_ids) for one in each.asked}) == 1
    prompt = len(each.asked[0].prompt_ids)
    usage = answer.json["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (prompt, sum(counts))
    assert (usage["prompt_cache_hit_tokens"], usage["holdfast"]["moves"]) == (3, 3)
    assert answer.headers["x-holdfast-seed"] == "11" and answer.headers["x-holdfast-moves"] == "3"
    assert answer.json["id"] == f"chatcmpl-{each.asked[0].id}"


def test_the_same_seed_gives_the_same_choices_again_and_fewer_of_them_are_the_first_ones() -> None:
    two, three = Each(), Each()
    ask(two, n=2, seed=5)
    ask(three, n=3, seed=5)
    assert [one.seed for one in two.asked] == [one.seed for one in three.asked][:2]


def test_a_stream_holds_all_choices_each_event_with_its_index_and_one_end() -> None:
    each = Each()
    answer = ask(each, n=3, stream=True, stream_options={"include_usage": True})
    events = [event for event in answer.events() if isinstance(event, dict)]
    texts, finishes = ["", "", ""], ["", "", ""]
    for event in events:
        for choice in event["choices"]:
            texts[choice["index"]] += choice["delta"].get("content", "")
            finishes[choice["index"]] += choice["finish_reason"] or ""
    assert texts == list(each.texts) and finishes == ["stop", "length", "stop"]
    roles = [
        event["choices"][0]["index"] for event in events if event["choices"] and "role" in event["choices"][0]["delta"]
    ]
    assert roles == [0, 1, 2]
    assert {event["id"] for event in events} == {f"chatcmpl-{each.asked[0].id}"}
    order = [event["choices"][0]["index"] for event in events[3:] if event["choices"]]
    assert order[:3] == [0, 1, 2], "they are written as they come, and not one after the other"
    assert events[-1]["usage"]["completion_tokens"] == sum(len(ids_of(text)) for text in each.texts)
    assert answer.events()[-2:] == [("comment", "holdfast moves=3"), "[DONE]"]
    assert b"\nid: " not in answer.body and not answer.body.startswith(b"id: ")
    assert sorted(each.closed) == [0, 1, 2]


def test_a_stop_string_ends_its_own_choice_only() -> None:
    each = Each(("alpha STOP beta gamma", "delta epsilon"))
    rows = ask(each, n=2, stop="STOP").json["choices"]
    assert [row["message"]["content"] for row in rows] == ["alpha ", "delta epsilon"]
    assert [row["finish_reason"] for row in rows] == ["stop", "length"]
    assert each.closed[0] == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_fault_in_one_before_anything_is_written_is_an_error_page_and_ends_the_others(stream: bool) -> None:
    each = Each(fails=0, fault=Overloaded("full", 1.0))
    answer = ask(each, n=3, stream=stream)
    assert (answer.status, answer.error["code"]) == (503, "overloaded")
    assert set(each.closed) == set(range(len(each.asked)))


def test_a_fault_in_one_midway_ends_the_stream_with_the_typed_error() -> None:
    @dataclass
    class Breaks(Each):
        async def __call__(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
            number = len(self.asked)
            async for chunk in Each.__call__(self, generation):
                yield chunk
                if number == 1:
                    raise EngineLost("moved too often")

    breaks = Breaks()
    events = ask(breaks, n=3, stream=True).events()
    assert events[-1]["error"]["code"] == "engine_lost" and "[DONE]" not in events
    assert len(breaks.asked) == 3


def test_who_hangs_up_ends_all_of_them() -> None:
    async def story() -> None:
        each = Each(holds=1)
        async with doorway(each) as place:
            async with place.client() as client:
                client.write(request(chat_body(n=3, stream=True)))
                await each.held.wait()
                client.writer.transport.abort()
            await place.nobody()
            for _ in range(100):
                await asyncio.sleep(0)
            assert sorted(each.closed) == [0, 1, 2]
            assert place.door.tally.in_flight == 0

    run(story())


def test_they_are_not_kept_and_the_head_says_so() -> None:
    async def story() -> None:
        each = Each()
        async with desk(each, SimShelves(), HandClock()) as one:
            answer = await one.ask(body=chat_body(n=2, stream=True), idempotency_key="k1")
            assert answer.headers["x-holdfast-resume"] == "off; an answer of several choices is not kept"
            name = answer.headers["x-holdfast-answer"]
            again = await one.ask(f"/v1/streams/{name}", method="GET")
            assert (again.status, again.error["code"]) == (404, "stream_not_found")
            assert "several choices" in again.error["message"]
            second = await one.ask(body=chat_body(n=2, stream=True), idempotency_key="k1")
            assert second.status == 200 and "x-holdfast-replayed" not in second.headers
            assert len(each.asked) == 4

    run(story())


def test_only_surfaces_with_choices_have_several() -> None:
    answer = ask(Each(), n=9)
    assert (answer.status, answer.error["param"]) == (400, "n")
