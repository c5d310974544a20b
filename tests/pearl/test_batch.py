"""The batch loop keeps the Core port's promises."""

from pathlib import Path

import folders
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_steadiness import finished, work

from holdfast.domain.fault import BadRequest, EngineRefused
from holdfast.domain.ports import Core, Produced, Work
from holdfast.domain.request import Finish, Sampling
from holdfast.pearl.open import open_core
from holdfast.pearl.options import CoreOptions

GREEDY = Sampling(temperature=0)


def until_finished(core: Core, ticket: int) -> list[Produced]:
    found = []
    while not found or (found[-1].finish is None and not found[-1].fault):
        found += [produced for produced in core.step() if produced.ticket == ticket]
    return found


def told(produced: list[Produced]) -> list[int]:
    return [token for one in produced for token in one.ids]


@pytest.fixture
def core(v3: Path) -> Core:
    return open_core(v3, CoreOptions(slots=2, queue_max=2, context_tokens_max=96, prefill_chunk_tokens=8))


def test_a_prompt_is_read_in_chunks_and_said_so(core: Core) -> None:
    core.submit(1, work(folders.text(1, 20), [], GREEDY, 3))
    produced = until_finished(core, 1)
    assert [len(one.ids) for one in produced] == [0, 0, 1, 1, 1]
    assert produced[-1].finish is Finish.LENGTH
    assert core.load().step == 5


def test_the_smallest_core_gives_the_same_answer(v3: Path, core: Core) -> None:
    smallest = open_core(v3, CoreOptions(slots=1, queue_max=0, prefill_chunk_tokens=1, context_tokens_max=40))
    asked = {1: work(folders.text(1, 9), [], GREEDY, 8)}
    assert finished(smallest, asked) == finished(core, asked)
    pair = open_core(v3, CoreOptions(slots=2, prefill_chunk_tokens=1))
    assert finished(pair, asked) == finished(core, asked)


def test_a_long_prompt_doesn_t_stop_a_running_answer(core: Core) -> None:
    core.submit(1, work(folders.text(1, 4), [], GREEDY, 40))
    core.step()
    core.submit(2, work(folders.text(2, 90), [], GREEDY, 2))
    for _ in range(8):
        produced = {one.ticket: one.ids for one in core.step()}
        assert len(produced[1]) == 1
        assert produced[2] == []


def test_stop_ids_end_an_answer_and_are_not_part_of_it(core: Core) -> None:
    prompt = folders.text(3, 10)
    free = finished(core, {1: work(prompt, [], GREEDY, 12)})[1]
    stop = free[5]
    core.submit(2, Work(prompt_ids=prompt, delivered_ids=[], sampling=GREEDY, max_tokens=12, seed=0, stop_ids=(stop,)))
    produced = until_finished(core, 2)
    assert told(produced) == free[: free.index(stop)]
    assert produced[-1].finish is Finish.STOP


def test_ignore_eos_leaves_the_model_s_own_end_out_of_the_stops(v3: Path, tmp_path: Path) -> None:
    prompt = folders.text(3, 10)
    free = finished(open_core(v3, CoreOptions(slots=1)), {1: work(prompt, [], GREEDY, 12)})[1]
    settings = v3 / "generation_config.json"
    copy = tmp_path / "model"
    copy.mkdir()
    for path in v3.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / settings.name).write_text(f'{{"eos_token_id": [{free[4]}]}}')
    core = open_core(copy, CoreOptions(slots=1))
    for ignore, tokens in ((False, free.index(free[4])), (True, 12)):
        sampling = Sampling(temperature=0, ignore_eos=ignore)
        core.submit(
            9, Work(prompt_ids=prompt, delivered_ids=[], sampling=sampling, max_tokens=12, seed=0, stop_ids=(free[4],))
        )
        assert sum(len(one.ids) for one in until_finished(core, 9)) == tokens


def test_max_tokens_bounds_the_whole_answer(core: Core) -> None:
    prompt = folders.text(4, 6)
    whole = finished(core, {1: work(prompt, [], GREEDY, 10)})[1]
    assert finished(core, {2: work(prompt, whole[:7], GREEDY, 10)})[2] == whole[7:]


def test_an_answer_that_was_complete_only_gets_its_finish(core: Core) -> None:
    prompt = folders.text(4, 6)
    core.submit(1, work(prompt, [9] * 10, GREEDY, 10))
    core.submit(2, work(prompt, [9] * 90, GREEDY, 200))
    produced = core.step()
    assert [(one.ticket, one.ids, one.finish) for one in produced] == [
        (1, [], Finish.LENGTH),
        (2, [], Finish.LENGTH),
    ]


def test_the_context_s_end_ends_an_answer(core: Core) -> None:
    assert len(finished(core, {1: work(folders.text(4, 90), [], GREEDY, 50)})[1]) == 6


def test_the_queue_is_bounded(core: Core) -> None:
    for ticket in range(4):
        core.submit(ticket, work(folders.text(ticket, 5), [], GREEDY, 5))
    with pytest.raises(EngineRefused, match="all 2 slots are taken and 4 attempts wait"):
        core.submit(9, work(folders.text(9, 5), [], GREEDY, 5))
    core.step()
    load = core.load()
    assert (load.running, load.queued, load.slots) == (2, 2, 2)
    core.abort(0)
    core.submit(9, work(folders.text(9, 5), [], GREEDY, 5))
    left = {1, 2, 3, 9}
    while left:
        left -= {one.ticket for one in core.step() if one.finish is not None}
    assert core.load().running == core.load().queued == core.load().cache_tokens == 0


def test_abort_frees_the_slot_for_the_next_step(core: Core) -> None:
    for ticket in range(3):
        core.submit(ticket, work(folders.text(ticket, 5), [], GREEDY, 50))
    core.step()
    core.abort(1)
    core.abort(77)
    assert {one.ticket for one in core.step()} == {0, 2}
    core.submit(4, work(folders.text(4, 5), [], GREEDY, 50))
    core.abort(4)
    assert {one.ticket for one in core.step()} == {0, 2}


BAD: list[tuple[dict[str, object], str]] = [
    ({"prompt_ids": []}, "prompt_ids"),
    ({"prompt_ids": [4, folders.VOCAB]}, "prompt_ids"),
    ({"prompt_ids": [-1]}, "prompt_ids"),
    ({"delivered_ids": [4, folders.VOCAB]}, "delivered_ids"),
    ({"prompt_ids": [4] * 96}, "prompt_ids"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"sampling": Sampling(temperature=-0.1)}, "temperature"),
    ({"sampling": Sampling(temperature=float("nan"))}, "temperature"),
    ({"sampling": Sampling(top_p=1.5)}, "top_p"),
    ({"sampling": Sampling(min_p=-1)}, "min_p"),
    ({"sampling": Sampling(top_k=-1)}, "top_k"),
    ({"sampling": Sampling(presence_penalty=3)}, "presence_penalty"),
    ({"sampling": Sampling(frequency_penalty=-3)}, "frequency_penalty"),
    ({"sampling": Sampling(logprobs=1000)}, "logprobs"),
    ({"sampling": Sampling(logit_bias=((folders.VOCAB, 1.0),))}, "logit_bias"),
    ({"sampling": Sampling(logit_bias=((3, 101.0),))}, "logit_bias"),
]


@pytest.mark.parametrize(("change", "field"), BAD)
def test_what_can_never_run_is_refused_by_name(core: Core, change: dict[str, object], field: str) -> None:
    fields: dict[str, object] = {
        "prompt_ids": [4],
        "delivered_ids": [],
        "sampling": GREEDY,
        "max_tokens": 5,
        "seed": 0,
        "stop_ids": (),
    }
    with pytest.raises(BadRequest) as caught:
        core.submit(1, Work(**{**fields, **change}))
    assert caught.value.param == field
    assert core.step() == []


def test_logprobs_come_with_their_tokens(core: Core) -> None:
    sampling = Sampling(temperature=0, logprobs=2)
    core.submit(1, work(folders.text(1, 5), [], sampling, 4))
    for produced in until_finished(core, 1):
        assert produced.logprobs is not None
        (told,) = produced.logprobs
        assert told.id == produced.ids[0] == told.top[0][0]
        assert told.logprob == told.top[0][1] >= told.top[1][1]


def test_a_second_turn_reads_only_what_is_new(v3: Path) -> None:
    core, fresh = (open_core(v3, CoreOptions(slots=2)) for _ in range(2))
    first = folders.text(1, 40)
    answer = finished(core, {1: work(first, [], GREEDY, 10)})[1]
    second = first + answer + folders.text(2, 8)
    core.submit(2, work(second, [], GREEDY, 10))
    produced = until_finished(core, 2)
    assert produced[0].cached_tokens == 49, "all but the answer's last token, which was never read"
    assert all(one.cached_tokens == 0 for one in produced[1:])
    assert told(produced) == finished(fresh, {3: work(second, [], GREEDY, 10)})[3]


def test_a_shared_beginning_is_copied_while_its_owner_runs(v3: Path) -> None:
    core, fresh = (open_core(v3, CoreOptions(slots=2)) for _ in range(2))
    shared = folders.text(1, 40)
    core.submit(1, work([*shared, 7], [], GREEDY, 30))
    core.step()
    other = work([*shared, 9, 9], [], GREEDY, 10)
    core.submit(2, other)
    produced = until_finished(core, 2)
    assert produced[0].cached_tokens == 40
    assert told(produced) == finished(fresh, {2: other})[2]


@pytest.fixture
def poisonable(v3: Path, tmp_path: Path) -> Path:
    """Token 5 alone uses the first 8 dimensions, where the first layer's query weights are so large that their sum is
    infinite: whoever says it ends up with NaN."""
    for path in v3.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.embed_tokens.weight"][:, :8] = 0
    tensors["model.embed_tokens.weight"][5] = (torch.arange(64) < 8).float()
    tensors["model.layers.0.input_layernorm.weight"][:8] = 1
    tensors["model.layers.0.self_attn.q_a_proj.weight"][:, :8] = 3e37
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path


WELL = [token for token in folders.text(1, 12) if token != 5]


def test_logits_that_are_not_finite_end_one_attempt_and_no_other(poisonable: Path) -> None:
    core = open_core(poisonable, CoreOptions(slots=2))
    alone = finished(core, {1: work(WELL, [], GREEDY, 6)})[1]
    core.submit(2, work(WELL, [], GREEDY, 6))
    core.submit(3, work([9, 5, 8], [], GREEDY, 6))
    found: dict[int, list[Produced]] = {2: [], 3: []}
    while core.load().running or core.load().queued:
        for one in core.step():
            found[one.ticket].append(one)
    assert found[3][-1].fault == "the logits at position 3 are not finite"
    assert found[3][-1].ids == []
    assert told(found[2]) == alone
    for ticket in (4, 5):
        core.submit(ticket, work(WELL, [], GREEDY, 6))
    assert told(until_finished(core, 5)) == alone


def test_a_slot_left_amid_a_poisoned_prompt_is_clean_for_the_next(poisonable: Path) -> None:
    core = open_core(poisonable, CoreOptions(slots=1, prefill_chunk_tokens=8))
    alone = finished(core, {1: work(WELL, [], GREEDY, 6)})[1]
    core.submit(2, work([9] * 20 + [5] * 20, [], GREEDY, 6))
    for _ in range(4):
        assert [one.ids for one in core.step()] == [[]]
    core.abort(2)
    assert finished(core, {3: work(WELL, [], GREEDY, 6)})[3] == alone
