from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy.lane import Lane


def test_one_answer_may_always_be_read_again_however_long_it_is():
    lane = Lane(tokens_max=100)
    assert lane.complaint("a", 5000) == ""
    lane.begin("a", "g1", 5000)
    assert lane.complaint("a", 1) == "a is reading 5000 tokens of moved answers again, 1 more are over 100"
    assert lane.complaint("b", 1) == ""
    assert lane.end("g1")
    assert not lane.end("g1")
    assert lane.complaint("a", 1) == ""


def test_up_to_the_limit_they_are_read_together():
    lane = Lane(tokens_max=100)
    lane.begin("a", "g1", 60)
    assert lane.complaint("a", 40) == ""
    lane.begin("a", "g2", 40)
    assert lane.complaint("a", 1) == "a is reading 100 tokens of moved answers again, 1 more are over 100"
    assert lane.held == 100


def test_within_a_wave_the_shortest_goes_first_and_waves_keep_their_order():
    lane = Lane()
    for name, tokens, at in (
        ("long", 900, 0.0),
        ("short", 10, 0.5),
        ("middle", 50, 0.9),
        ("late", 1, 2.1),
        ("last", 2, 2.5),
    ):
        lane.join(name, tokens, at)
    assert lane.queue() == ["short", "middle", "long", "late", "last"]
    lane.leave("middle")
    lane.begin("a", "short", 10)
    assert lane.queue() == ["long", "late", "last"]


def test_equals_go_in_the_order_in_which_they_came():
    lane = Lane()
    for name in "cab":
        lane.join(name, 7, 0.0)
    assert lane.queue() == ["c", "a", "b"]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 60)), max_size=60), st.randoms(use_true_random=False))
def test_no_replica_reads_more_than_the_limit_unless_it_is_one_answer_and_permits_balance(asked, chance):
    lane, begun = Lane(tokens_max=100), []
    for number, (replica, tokens) in enumerate(asked):
        if lane.complaint(replica, tokens) == "":
            lane.begin(replica, f"g{number}", tokens)
            begun.append(f"g{number}")
        elif begun:
            assert lane.end(begun.pop(chance.randrange(len(begun))))
        for ones in lane.reading.values():
            assert sum(ones.values()) <= 100 or len(ones) == 1
    for name in begun:
        assert lane.end(name)
    assert lane.held == 0
    assert lane.reading == {}
