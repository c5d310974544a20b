"""Output that no sound engine gives, and what must not be taken for it."""

from math import nan

from holdfast.domain.request import TokenLogprob
from holdfast.policy.sanity import REPEATS_MAX, Check, Curious, Docket, Insane, Odd


def _odd(replica="a", prompt=1, repeats=True):
    return Odd(replica=replica, prompt=prompt, repeats=repeats, why="it is odd")


def _complain(docket, odd, now):
    docket.note(odd, now)
    return docket.judge(odd)


def _whys(check, *chunks):
    seen = [check.see(ids, logprobs) for ids, logprobs in chunks]
    return [one.why for one in seen if one is not None]


def test_a_token_without_end_is_told_once_wherever_the_chunks_are_cut():
    check = Check("a", [1, 2])
    chunks = [([7] * 5, None)] * REPEATS_MAX
    assert _whys(check, *chunks) == ["token 7 came 260 times in a row"]


def test_a_run_that_ends_in_time_is_honest():
    check = Check("a", [1, 2])
    assert _whys(check, *[([7] * (REPEATS_MAX - 1), None), ([8], None)] * 20) == []


def test_not_a_number_is_told_once_and_no_probability_at_all_is_fine():
    fine = [([1], None), ([1, 2], [TokenLogprob(1, -0.5), TokenLogprob(2, float("-inf"))])]
    broken = [([1, 2], [TokenLogprob(1, -0.5), TokenLogprob(2, nan)])]
    assert _whys(Check("a", [1]), *fine, *broken, *broken) == ["a log probability is not a number"]


def test_prompts_are_told_apart():
    odd = [Check("a", prompt).see([7] * REPEATS_MAX, None) for prompt in ([1, 2], [1, 2], [1, 3])]
    assert odd[0] == odd[1]
    assert odd[0].prompt != odd[2].prompt


def test_two_streams_within_a_minute_put_a_replica_under_suspicion():
    docket = Docket()
    assert _complain(docket, _odd(prompt=1), 0) == Curious("it is odd, in one stream so far")
    assert _complain(docket, _odd(prompt=2), 59) == Insane("it is odd: 2 streams within 60 s")


def test_two_streams_further_apart_do_not():
    docket = Docket()
    _complain(docket, _odd(prompt=1), 0)
    assert _complain(docket, _odd(prompt=2), 61) == Curious("it is odd, in one stream so far")


def test_one_prompt_asked_twice_is_one_prompt():
    docket = Docket()
    _complain(docket, _odd(prompt=1), 0)
    assert isinstance(_complain(docket, _odd(prompt=1), 1), Curious)


def test_what_every_replica_repeats_is_the_model():
    docket = Docket()
    _complain(docket, _odd("b", 1), 0)
    _complain(docket, _odd("a", 2), 1)
    assert _complain(docket, _odd("a", 3), 2) == Curious("it is odd, but b repeats itself too: that is the model")


def test_broken_numbers_need_no_second_prompt_and_no_peer_excuses_them():
    docket = Docket()
    _complain(docket, _odd("b", 1, repeats=False), 0)
    _complain(docket, _odd("a", 1, repeats=False), 1)
    assert _complain(docket, _odd("a", 1, repeats=False), 2) == Insane("it is odd: 2 streams within 60 s")


def test_a_replica_that_was_forgotten_starts_clean():
    docket = Docket()
    _complain(docket, _odd(prompt=1), 0)
    docket.forget("a")
    assert isinstance(_complain(docket, _odd(prompt=2), 1), Curious)
