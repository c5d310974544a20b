"""The room's book, against a plain model of it: two workers, one board, any history."""

from collections import defaultdict

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from holdfast.policy.room import Room

BOOTS = ("a", "b", "c")
KEYS = tuple("123456789")


class Board:
    """What both workers hold, seen by the other at once."""

    def __init__(self) -> None:
        self.held = (defaultdict(lambda: (0, 0)), defaultdict(lambda: (0, 0)))

    def room(self, worker: int) -> Room:
        def put(boot: str, streams: int, tokens: int) -> None:
            self.held[worker][boot] = streams, tokens

        return Room(lambda boot: self.held[1 - worker][boot], put)


def _one(slots=4, tokens_max=100) -> Room:
    room = Room()
    room.see("a", slots, tokens_max)
    return room


def test_it_says_why_there_is_no_room():
    room = Room()
    assert room.fits(1) == "no replica may take work"
    assert room.has_room("a", 1) == "it takes no work now"
    room.see("a", 2, 100)
    assert room.take("a", "x", 60) == ""
    assert room.take("a", "y", 60) == "40 of its 100 cache tokens are free, 60 are wanted"
    assert room.fits(41) == "no replica has 41 tokens of its cache free, the most is 40"
    assert room.take("a", "y", 40) == ""
    assert room.take("a", "z", 1) == "all its 2 slots are taken"
    assert room.fits(1) == "all 2 slots of 1 replicas are taken"


def test_a_promise_counts_until_it_is_kept_and_again_when_its_replica_is_lost():
    room = _one(slots=2)
    room.grant("x", 30)
    room.grant("y", 30)
    assert room.fits(1) == "all 2 slots of 1 replicas are taken, 2 of them by answers that have no replica yet"
    assert (room.take("a", "x", 30), room.take("a", "y", 30)) == ("", "")
    room.ungrant("y")
    room.give("y")
    assert room.fits(1) == ""
    room.see("b", 1)
    room.gone("a")  # x is lost, and goes on elsewhere before anybody is let in
    room.give("x")
    assert room.fits(1) == "all 1 slots of 1 replicas are taken, 1 of them by answers that have no replica yet"
    assert room.used() == (1, 30)


def test_tokens_that_are_promised_are_nobody_elses():
    room = _one(slots=8, tokens_max=100)
    assert room.take("a", "z", 20) == ""
    room.grant("x", 60)
    assert room.fits(20) == ""
    assert room.fits(21) == "60 tokens are promised to 1 answers that have no replica yet"


def test_an_answer_that_is_larger_than_any_replica_gets_one_for_itself():
    room = _one(tokens_max=100)
    assert room.fits(1000) == ""
    assert room.take("a", "x", 1000) == ""
    assert room.fits(1) == "no replica has 1 tokens of its cache free, the most is 0"


def test_a_hold_grows_and_shrinks_with_its_work():
    room = _one(slots=4, tokens_max=100)
    room.take("a", "x", 10, 30)
    room.grow("x", 50)
    assert (room.used(), room.places["a"].work) == ((1, 50), 110)
    room.grow("x", 20)
    assert (room.fits(80), room.places["a"].work) == ("", 50)
    room.give("x")
    assert (room.used(), room.places["a"].work) == ((0, 0), 0)


def test_of_two_workers_only_one_gets_the_last_slot_even_if_both_looked_before():
    board = Board()
    one, other = board.room(0), board.room(1)
    one.see("a", 1)
    other.see("a", 1)
    told = board.room(1).changed

    def meanwhile(boot: str, streams: int, tokens: int) -> None:
        """The other takes the slot after this one has looked, before it has told."""
        if streams:
            told("a", 1, 5)
        board.held[0][boot] = streams, tokens

    one.changed = meanwhile
    assert one.take("a", "x", 5) == "another worker took the last room of a"
    assert (board.held[0]["a"], one.used()) == ((0, 0), (0, 0))


def test_what_others_free_shows_at_the_next_look():
    board = Board()
    one, other = board.room(0), board.room(1)
    for room in (one, other):
        room.see("a", 1, 50)
    other.take("a", "x", 50)
    one.see("a", 1, 50)
    assert one.fits(1) == "all 1 slots of 1 replicas are taken"
    other.give("x")
    one.see("a", 1, 50)
    assert one.fits(50) == ""


def test_one_that_serves_only_in_need_is_no_reason_to_let_anybody_in():
    room = _one(slots=1)
    room.see("b", 9, 0, serving=False)
    room.take("a", "x", 1)
    assert room.fits(1) == "all 1 slots of 1 replicas are taken"
    assert room.take("b", "y", 1) == ""
    assert room.total() == (1, 100)


def test_a_key_holds_one_place():
    room = _one()
    room.take("a", "x", 1)
    with pytest.raises(KeyError):
        room.take("a", "x", 1)


class Workers(RuleBasedStateMachine):
    """Two workers share three replicas."""

    def __init__(self) -> None:
        super().__init__()
        self.board = Board()
        self.rooms = (self.board.room(0), self.board.room(1))
        self.sizes: dict[str, tuple[int, int]] = {}
        self.holds: tuple[dict, dict] = ({}, {})  # key -> boot, tokens
        self.grants: tuple[dict, dict] = ({}, {})
        self.grown: set[str] = set()  # boots where a hold has grown, or that have shrunk: they may hold too much

    @rule(boot=st.sampled_from(BOOTS), slots=st.integers(1, 4), tokens_max=st.sampled_from([0, 50, 100]))
    def seen(self, boot, slots, tokens_max):
        if self.sizes.get(boot, (slots, tokens_max)) != (slots, tokens_max):
            self.grown.add(boot)
        self.sizes[boot] = slots, tokens_max
        for room in self.rooms:
            room.see(boot, slots, tokens_max)

    @rule()
    def looked(self):
        for boot, size in self.sizes.items():
            for room in self.rooms:
                room.see(boot, *size)

    @rule(boot=st.sampled_from(BOOTS))
    def lost(self, boot):
        self.sizes.pop(boot, None)
        for room, holds in zip(self.rooms, self.holds, strict=True):
            room.gone(boot)
            for key in [key for key, (where, _) in holds.items() if where == boot]:
                del holds[key]
                room.give(key)
        self.grown.discard(boot)

    @rule(worker=st.integers(0, 1), key=st.sampled_from(KEYS), tokens=st.integers(1, 60))
    def granted(self, worker, key, tokens):
        if key not in self.grants[worker]:
            self.grants[worker][key] = tokens
            self.rooms[worker].grant(key, tokens)

    @rule(worker=st.integers(0, 1), key=st.sampled_from(KEYS))
    def ungranted(self, worker, key):
        self.grants[worker].pop(key, None)
        self.rooms[worker].ungrant(key)

    @rule(worker=st.integers(0, 1), key=st.sampled_from(KEYS), boot=st.sampled_from(BOOTS), tokens=st.integers(1, 60))
    def taken(self, worker, key, boot, tokens):
        if key in self.holds[worker]:
            return
        streams, held = self._on(boot)
        slots, most = self.sizes.get(boot, (0, 0))
        may = streams < slots and (most == 0 or streams == 0 or held + tokens <= most)
        assert (self.rooms[worker].has_room(boot, tokens) == "") == may
        assert (self.rooms[worker].take(boot, key, tokens) == "") == may
        if may:
            self.holds[worker][key] = boot, tokens

    @rule(worker=st.integers(0, 1), key=st.sampled_from(KEYS), tokens=st.integers(1, 60))
    def grew(self, worker, key, tokens):
        if key in self.holds[worker]:
            boot, _ = self.holds[worker][key]
            self.holds[worker][key] = boot, tokens
            self.grown.add(boot)
        if key in self.grants[worker]:
            self.grants[worker][key] = tokens
        self.rooms[worker].grow(key, tokens)

    @rule(worker=st.integers(0, 1), key=st.sampled_from(KEYS))
    def given(self, worker, key):
        self.holds[worker].pop(key, None)
        self.rooms[worker].give(key)

    @rule(tokens=st.integers(1, 120))
    def asked(self, tokens):
        """After a look `fits` is exact, but for promises."""
        self.looked()
        for worker, room in enumerate(self.rooms):
            promised = [size for key, size in self.grants[worker].items() if key not in self.holds[worker]]
            left = {boot: slots - self._on(boot)[0] for boot, (slots, _) in self.sizes.items()}
            free = sum(max(0, one) for one in left.values())
            found = [boot for boot in self.sizes if left[boot] > 0 and self._spare(boot) >= tokens]
            if room.fits(tokens) == "":
                assert free > len(promised)
                assert found
            elif not promised:
                assert not found

    def _on(self, boot):
        mine = [size for holds in self.holds for where, size in holds.values() if where == boot]
        return len(mine), sum(mine)

    def _spare(self, boot):
        streams, held = self._on(boot)
        most = self.sizes[boot][1]
        return most - held if most and streams else float("inf")

    @invariant()
    def nobody_is_given_more_than_it_can_hold(self):
        for boot, (slots, most) in self.sizes.items():
            if boot not in self.grown:
                streams, held = self._on(boot)
                assert streams <= slots
                assert most == 0 or streams <= 1 or held <= most

    @invariant()
    def the_books_are_right(self):
        for worker, room in enumerate(self.rooms):
            promised = [size for key, size in self.grants[worker].items() if key not in self.holds[worker]]
            mine = [size for where, size in self.holds[worker].values() if where in self.sizes]
            assert room.used() == (len(mine) + len(promised), sum(mine) + sum(promised))
            assert room.total()[0] == sum(slots for slots, _ in self.sizes.values())
            assert room.free == sum(place.free for place in room.open)
            assert {place.boot for place in room.open} == {
                place.boot for place in room.places.values() if place.serving and place.free > 0
            }
            assert [place.at for place in room.open] == list(range(len(room.open)))
            assert not set(room.places) - set(self.sizes) - {where for where, _ in self.holds[worker].values()}


Workers.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestWorkers = Workers.TestCase
