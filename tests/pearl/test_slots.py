"""Which slot an answer gets, and what it finds there."""

from holdfast.pearl.slots import Slots, shared_tokens

TALK = list(range(100, 160))


def test_shared_tokens() -> None:
    assert shared_tokens([1, 2, 3], [1, 2, 3, 4]) == 3
    assert shared_tokens([1, 2, 3, 9], [1, 2, 3, 4]) == 3
    assert shared_tokens([5], [1]) == 0
    assert shared_tokens([], [1]) == 0
    for n in range(60):
        assert shared_tokens(TALK, [*TALK[:n], 7, 7]) == n


def test_strangers_take_the_slot_that_was_left_longest_ago() -> None:
    slots = Slots(3)
    taken = [slots.take([n, n])[0] for n in range(3)]
    assert taken == [0, 1, 2]
    assert slots.free == 0
    slots.leave(2)
    slots.leave(0)
    assert slots.take([50, 51])[0] == 2


def test_a_second_turn_comes_back_to_its_slot() -> None:
    slots = Slots(3)
    slots.take([1, 2])
    slot, _, tokens = slots.take(TALK)
    assert tokens == 0
    slots.hold(slot, TALK)
    slots.leave(slot)
    assert slots.take([*TALK, 7, 8]) == (slot, slot, len(TALK))


def test_the_last_token_is_always_left_to_compute() -> None:
    slots = Slots(2)
    slot = slots.take(TALK)[0]
    slots.hold(slot, TALK)
    slots.leave(slot)
    assert slots.take(TALK) == (slot, slot, len(TALK) - 1)


def test_a_beginning_is_copied_from_a_busy_slot() -> None:
    slots = Slots(2)
    slot = slots.take(TALK)[0]
    slots.hold(slot, TALK)
    assert slots.take([*TALK[:40], 5, 6]) == (1, slot, 40)


def test_what_is_spoilt_is_not_offered() -> None:
    slots = Slots(2)
    slot = slots.take(TALK)[0]
    slots.hold(slot, TALK)
    slots.leave(slot, spoilt=True)
    assert slots.take(TALK)[2] == 0
