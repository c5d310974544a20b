"""The scripted core keeps its script whatever surrounds an answer, and misbehaves exactly as told."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some
from msgspec import structs

from holdfast.domain.fault import BadRequest, EngineRefused
from holdfast.domain.ports import Work
from holdfast.domain.request import Finish, Sampling
from holdfast.sim.scripted import Mishap, Script, ScriptedCore, plain_vocabulary, scripted_answer

TOKENIZER = Path(__file__).parents[2] / "src" / "holdfast" / "shipped" / "pearl" / "tokenizer.json"
prompts = some.lists(some.integers(0, 511), min_size=1, max_size=8)


def work(
    prompt_ids: list[int], max_tokens: int, delivered_ids: list[int] | None = None, stop_ids: tuple[int, ...] = ()
) -> Work:
    return Work(
        prompt_ids=prompt_ids,
        delivered_ids=delivered_ids or [],
        sampling=Sampling(),
        max_tokens=max_tokens,
        seed=3,
        stop_ids=stop_ids,
    )


def drive(core: ScriptedCore, steps: int = 1000) -> dict[int, tuple[list[int], Finish | None]]:
    """Step until idle: the ids and the finish of every ticket."""
    told: dict[int, tuple[list[int], Finish | None]] = {}
    for _ in range(steps):
        if not core.load().running + core.load().queued:
            return told
        for one in core.step():
            ids, finish = told.get(one.ticket, ([], None))
            assert finish is None, "something came after the finish"
            told[one.ticket] = ids + one.ids, one.finish
    raise AssertionError("it does not end")


def test_a_grammar_is_refused() -> None:
    asked = structs.replace(work([1], 5), sampling=Sampling(grammar='start: "a"'))
    with pytest.raises(BadRequest, match="known beforehand and can't be kept to a grammar") as caught:
        ScriptedCore(Script()).submit(1, asked)
    assert caught.value.param == "grammar"


@given(prompts, some.integers(1, 40), some.integers(0, 40), some.integers(1, 7), some.integers(0, 5))
def test_a_continued_answer_is_the_rest_of_the_whole(
    prompt: list[int], tokens: int, delivered: int, per_step: int, chunk: int
) -> None:
    script = Script(tokens_per_step=per_step, prefill_chunk_tokens=chunk)
    whole = scripted_answer(prompt, 3, tokens, script)
    core = ScriptedCore(script)
    core.submit(1, work(prompt, tokens, whole[:delivered]))
    assert drive(core) == {1: (whole[delivered:], Finish.LENGTH)}


@given(some.lists(some.tuples(prompts, some.integers(1, 20)), min_size=1, max_size=12), some.integers(1, 4))
def test_neighbours_change_nothing_and_all_are_served(asked: list[tuple[list[int], int]], slots: int) -> None:
    core = ScriptedCore(Script(slots=slots))
    for ticket, (prompt, tokens) in enumerate(asked):
        core.submit(ticket, work(prompt, tokens))
    script = core.script
    assert drive(core) == {
        ticket: (scripted_answer(prompt, 3, tokens, script), Finish.LENGTH)
        for ticket, (prompt, tokens) in enumerate(asked)
    }


@given(prompts, some.integers(0, 19))
def test_a_stop_id_ends_it_at_its_first_place(prompt: list[int], place: int) -> None:
    core = ScriptedCore(Script())
    whole = scripted_answer(prompt, 3, 20, core.script)
    core.submit(1, work(prompt, 20, stop_ids=(whole[place],)))
    assert drive(core) == {1: (whole[: whole.index(whole[place])], Finish.STOP)}


def test_an_answer_of_a_given_length_stops_by_itself_when_continued_too() -> None:
    core = ScriptedCore(Script(answer_tokens=10))
    whole = scripted_answer([5], 3, 10, core.script)
    for delivered in (0, 4, 10):
        core.submit(delivered, work([5], 100, whole[:delivered], stop_ids=(1,)))
    assert drive(core) == {n: (whole[n:], Finish.STOP) for n in (0, 4, 10)}


def test_slots_and_queue_are_bounded_and_an_abort_frees_them() -> None:
    core = ScriptedCore(Script(slots=2, queue_max=1))
    for ticket in (1, 2, 3):
        core.submit(ticket, work([5], 10))
    with pytest.raises(EngineRefused, match="all 2 slots are taken and 1 attempts wait"):
        core.submit(4, work([5], 10))
    core.abort(1)
    core.submit(4, work([5], 10))
    core.abort(4)
    core.abort(99)
    assert (core.load().running, core.load().queued) == (2, 0)
    assert set(drive(core)) == {2, 3}


def test_the_load_tells_progress_and_use() -> None:
    core = ScriptedCore(Script(slots=2, context_tokens_max=100))
    core.submit(1, work([5, 6, 7], 10, [8]))
    core.step()
    load = core.load()
    assert (load.step, load.running, load.cache_tokens, load.cache_tokens_max) == (1, 1, 5, 200)
    core.frozen = True
    assert core.step() == []
    assert core.load() == load


def test_mishaps_befall_one_attempt_each() -> None:
    core = ScriptedCore(Script())
    core.befall(Mishap("refuse"))
    with pytest.raises(EngineRefused):
        core.submit(1, work([5], 10))
    core.befall(Mishap("bad"))
    with pytest.raises(BadRequest):
        core.submit(1, work([5], 10))
    core.submit(1, work([5], 10))
    assert len(drive(core)[1][0]) == 10


def test_logprobs_are_told_when_asked_for() -> None:
    core = ScriptedCore(Script())
    asked = work([5], 3)
    core.submit(
        1, Work(**{**{f: getattr(asked, f) for f in asked.__struct_fields__}, "sampling": Sampling(logprobs=1)})
    )
    (one,) = core.step()
    assert one.logprobs is not None
    assert [told.id for told in one.logprobs] == one.ids


def test_releases_are_equal_for_equal_scripts_only() -> None:
    plain = ScriptedCore(Script()).release()
    assert ScriptedCore(Script(token_s=1, slots=3)).release() == plain
    assert ScriptedCore(Script(vocabulary=(1, 2))).release() != plain


def test_the_vocabulary_is_made_of_plain_words() -> None:
    vocabulary, size = plain_vocabulary(TOKENIZER.read_bytes())
    assert len(vocabulary) > 100
    assert min(vocabulary) >= 16, "the first sixteen are special"
    assert max(vocabulary) < size


@pytest.mark.parametrize("text", [b"", b"{}", b'{"model":{"vocab":{"\\u0001":1}}}'])
def test_a_tokenizer_that_is_none_is_told_so(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        plain_vocabulary(text)
