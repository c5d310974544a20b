"""The bound on thinking, over a service that cuts its answers into chunks as the test says."""

from contextlib import aclosing

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.domain.dialect import ThinkingEnd
from holdfast.domain.request import Chunk, Finish, Generation, Sampling, TokenLogprob
from holdfast.gateway.think import think
from holdfast.sim.clock import run

MARK = 5
END = ThinkingEnd(MARK, (10, MARK, 10, 10))
SIGN = Chunk([], waiting="it waits")


class Scripted:
    """Token n of every answer is 100 + n, but where `marks` says that thinking ends. `cuts` are the lengths of the chunks."""

    def __init__(self, cuts=(1,), marks=(), stops_after=None):
        self.cuts, self.marks, self.stops_after = cuts, marks, stops_after
        self.asked, self.closed = [], 0

    def token(self, place):
        return MARK if place in self.marks else 100 + place

    async def __call__(self, generation):
        self.asked.append(generation)
        place, number = len(generation.delivered_ids), 0
        last = min(generation.max_tokens, self.stops_after or generation.max_tokens)
        try:
            yield Chunk([], waiting="it waits")
            first = True
            while True:
                size = min(self.cuts[number % len(self.cuts)], last - place)
                ids = [self.token(place + i) for i in range(size)]
                rows = None
                if generation.sampling.logprobs >= 0:
                    rows = [TokenLogprob(one, -1.0, ()) for one in ids]
                place, number = place + size, number + 1
                done = place == last
                finish = (Finish.STOP if self.stops_after else Finish.LENGTH) if done else None
                yield Chunk(ids, finish, rows, 3 if first else 0, moves=2)
                first = False
                if done:
                    return
        finally:
            self.closed += 1


def asked(max_tokens=40, thinking_max=12, **more):
    return Generation(id="g", prompt_ids=[1, 2, 3], max_tokens=max_tokens, thinking_max=thinking_max, **more)


def told(service, generation, end=END):
    """All chunks of the answer through the layer."""

    async def story():
        async with aclosing(think(lambda prompt_ids: end)(service)(generation)) as chunks:
            return [chunk async for chunk in chunks]

    return run(story())


def ids_of(chunks):
    return [one for chunk in chunks for one in chunk.ids]


def bounded(places, thinking_max=12, end=END):
    """The answer as it should be: reasoning, the mark with what belongs to it, and the rest at its own places."""
    begin = [100 + place for place in range(thinking_max)] + list(end.ids)
    return begin + [100 + place for place in range(len(begin), places)]


def test_without_a_bound_or_without_reasoning_the_answer_passes_by_untouched():
    for generation, end in ((asked(thinking_max=0), END), (asked(), None)):
        service = Scripted()
        assert ids_of(told(service, generation, end)) == [100 + place for place in range(40)]
        assert [one.urgent for one in service.asked] == [False]


def test_thinking_ends_at_the_bound_and_the_answer_goes_on_from_there():
    service = Scripted()
    chunks = told(service, asked())
    assert ids_of(chunks) == bounded(40)
    assert chunks[-1].finish is Finish.LENGTH
    first, second = service.asked
    assert (first.delivered_ids, first.urgent) == ([], False)
    assert (second.delivered_ids, second.urgent) == (bounded(40)[:16], True)
    assert service.closed == 2
    assert [chunk.ids for chunk in chunks if MARK in chunk.ids] == [
        [111, 10, MARK, 10, 10]
    ]  # in one with the last token


def test_moves_are_added_up_and_cached_tokens_are_told_once():
    chunks = told(Scripted(), asked())
    assert [chunk.moves for chunk in chunks if chunk.ids] == [2] * 12 + [4] * 24
    assert sum(chunk.cached_tokens for chunk in chunks) == 3


def test_thinking_that_ends_by_itself_is_left_alone():
    service = Scripted(marks=(11,))
    assert ids_of(told(service, asked())) == [MARK if place == 11 else 100 + place for place in range(40)]
    assert len(service.asked) == 1
    service = Scripted(marks=(12,))  # one token too late
    assert ids_of(told(service, asked())) == bounded(40)


def test_an_answer_without_room_for_more_ends_with_its_thinking():
    service = Scripted()
    chunks = told(service, asked(max_tokens=14))
    assert ids_of(chunks) == bounded(14)[:14] == [*range(100, 112), 10, MARK]
    assert chunks[-1].finish is Finish.LENGTH
    assert len(service.asked) == 1


def test_an_answer_that_is_shorter_than_the_bound_ends_as_it_would():
    chunks = told(Scripted(stops_after=7), asked())
    assert ids_of(chunks) == [*range(100, 107)]
    assert chunks[-1].finish is Finish.STOP


def test_there_is_a_row_of_logprobs_for_every_token_and_what_was_not_drawn_was_certain():
    chunks = told(Scripted(cuts=(5,)), asked(sampling=Sampling(logprobs=0)))
    rows = [row for chunk in chunks for row in chunk.logprobs or ()]
    assert [row.id for row in rows] == ids_of(chunks) == bounded(40)
    assert [row.logprob for row in rows] == [-1.0] * 12 + [0.0] * 4 + [-1.0] * 24


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(1, 17), min_size=1, max_size=6),
    st.integers(1, 45),
    st.sets(st.integers(0, 39), max_size=2),
    st.integers(0, 40),
)
def test_neither_chunks_nor_a_new_owner_change_a_token(cuts, thinking_max, marks, had):
    """However the engine cuts its tokens, and wherever another worker takes the answer over: the tokens are the same."""
    generation = asked(thinking_max=thinking_max)
    whole = ids_of(told(Scripted(marks=marks), generation))
    assert ids_of(told(Scripted(cuts=tuple(cuts), marks=marks), generation)) == whole
    cut = thinking_max if whole[thinking_max : thinking_max + 4] == list(END.ids) else 40
    if cut < had < cut + 4:
        had = cut  # the mark comes whole or not at all
    taken_over = asked(thinking_max=thinking_max, delivered_ids=whole[:had])
    if had < 40:
        rest = ids_of(told(Scripted(cuts=tuple(cuts), marks=marks), taken_over))
        assert whole[:had] + rest == whole
