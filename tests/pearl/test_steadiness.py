"""An answer's bits don't depend on what else is in the batch, on how its prompt was cut, or on where it was taken up again."""

from pathlib import Path

import folders
import pytest
import torch
from test_parity import spoken

from holdfast.domain.ports import Core, Work
from holdfast.domain.release import Exactness
from holdfast.domain.request import Sampling
from holdfast.pearl.model import Model
from holdfast.pearl.open import open_core
from holdfast.pearl.options import CoreOptions
from holdfast.pearl.sheet import Sheet

SAMPLINGS = {
    "greedy": Sampling(temperature=0),
    "sampled": Sampling(temperature=0.8),
    "filtered": Sampling(temperature=1.1, top_p=0.9, top_k=40, frequency_penalty=0.4, presence_penalty=0.2),
}


def work(prompt: list[int], said: list[int], sampling: Sampling, tokens: int = 24, seed: int = 7) -> Work:
    return Work(prompt_ids=prompt, delivered_ids=said, sampling=sampling, max_tokens=tokens, seed=seed, stop_ids=())


def finished(core: Core, wanted: dict[int, Work]) -> dict[int, list[int]]:
    """Run these attempts to their end; the ids that each produced."""
    found: dict[int, list[int]] = {ticket: [] for ticket in wanted}
    for ticket, one in wanted.items():
        core.submit(ticket, one)
    left = set(wanted)
    while left:
        for produced in core.step():
            assert not produced.fault
            found[produced.ticket] += produced.ids
            if produced.finish is not None:
                left.discard(produced.ticket)
    return found


@pytest.fixture(scope="module", params=["few experts", "many experts"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    many = {"n_routed_experts": 24, "num_experts_per_tok": 5} if request.param == "many experts" else {}
    return folders.deepseek_v3(tmp_path_factory.mktemp("steady"), **many)


def test_a_row_is_the_same_alone_and_in_any_batch(folder: Path) -> None:
    model = Model.open(folder, CoreOptions(slots=32))
    texts = [folders.text(n, 5 + (n * 7) % 60) for n in range(32)]
    alone = [spoken(model, n, text, [len(text)])[-1] for n, text in enumerate(texts)]
    for size in (2, 3, 5, 8, 13, 21, 32):
        sheet = Sheet()
        for n in range(size):
            sheet.one(model.cache, n, texts[n][-1], len(texts[n]) - 1)
        sheet.parts.append((0, size, 0, size))
        together = model.forward(sheet)
        for n in range(size):
            assert torch.equal(together[n], alone[n]), (size, n)


def test_a_prompt_is_the_same_in_any_pieces(folder: Path) -> None:
    model = Model.open(folder, CoreOptions(slots=2))
    text = folders.text(5, 97)
    whole = spoken(model, 0, text, [97])
    for piece in (1, 2, 3, 4, 5, 16, 31, 64):
        assert torch.equal(spoken(model, 1, text, [piece]), whole), piece


def test_prompts_that_are_read_together_don_t_mix(folder: Path) -> None:
    model = Model.open(folder, CoreOptions(slots=5))
    texts = [folders.text(n, 30) for n in range(5)]
    alone = [spoken(model, 0, text, [30]) for text in texts]
    sheet = Sheet()
    for slot in (0, 1, 2, 4):
        sheet.many(model.cache, slot, texts[slot], 0)
    assert sheet.parts == [(0, 90, 0, 3), (90, 120, 4, 1)]
    sheet.picks = list(range(120))
    together = model.forward(sheet).split(30)
    for slot, logits in zip((0, 1, 2, 4), together, strict=True):
        assert torch.equal(logits, alone[slot])


@pytest.mark.parametrize("name", SAMPLINGS)
def test_an_answer_goes_on_alike_from_every_token(folder: Path, name: str) -> None:
    sampling, prompt = SAMPLINGS[name], folders.text(11, 19)
    core = open_core(folder, CoreOptions(slots=8))
    assert core.release().exactness is Exactness.EXACT
    whole = finished(core, {0: work(prompt, [], sampling)})[0]
    assert len(whole) == 24
    assert len(set(whole)) > 4
    other = open_core(folder, CoreOptions(slots=24, prefill_chunk_tokens=11))
    resumed = finished(other, {k: work(prompt, whole[:k], sampling) for k in range(24)})
    for k in range(24):
        assert whole[:k] + resumed[k] == whole, k


def test_answers_don_t_disturb_each_other(folder: Path) -> None:
    core = open_core(folder, CoreOptions(slots=6, prefill_chunk_tokens=16))
    wanted = {n: work(folders.text(n, 3 + 9 * n), [], SAMPLINGS["sampled"], 5 + 3 * n, seed=n) for n in range(12)}
    together = finished(core, wanted)
    for n, one in wanted.items():
        lonely = open_core(folder, CoreOptions(slots=1)) if n % 4 == 0 else core
        assert finished(lonely, {n: one})[n] == together[n]
