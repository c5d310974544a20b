"""Models that transformers computes go through the same loop: the R1 distills' Qwen2 and Llama."""

import json
from pathlib import Path
from shutil import copytree

import folders
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_steadiness import finished, work
from transformers import AutoModelForCausalLM

from holdfast.domain.release import Exactness
from holdfast.domain.request import Sampling
from holdfast.pearl.open import open_core
from holdfast.pearl.options import BadModel, CoreOptions

GREEDY = Sampling(temperature=0)


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def distill(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.distill(tmp_path_factory.mktemp(request.param), request.param)


def test_greedy_answers_equal_transformers(distill: Path) -> None:
    core = open_core(distill, CoreOptions(slots=3, prefill_chunk_tokens=8))
    wanted = {n: work(folders.text(n, 4 + 9 * n), [], GREEDY, 12) for n in range(5)}
    ours = finished(core, wanted)
    model = AutoModelForCausalLM.from_pretrained(distill, dtype=torch.float32)
    for n, one in wanted.items():
        prompt = torch.tensor([one.prompt_ids])
        theirs = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        assert ours[n] == theirs[0, prompt.shape[1] :].tolist()


def test_an_answer_goes_on_in_another_core(distill: Path) -> None:
    prompt, sampling = folders.text(8, 15), Sampling(temperature=0.8)
    core = open_core(distill, CoreOptions(slots=2))
    assert core.release().exactness in (Exactness.EXACT, Exactness.GREEDY)
    whole = finished(core, {0: work(prompt, [], sampling, 16)})[0]
    other = open_core(distill, CoreOptions(slots=16))
    resumed = finished(other, {k: work(prompt, whole[:k], sampling, 16) for k in range(16)})
    assert [whole[:k] + resumed[k] for k in range(16)] == [whole] * 16


ASCII = [chr(33 + n) for n in range(94)]  # as GPT-2's alphabet writes itself


def with_words(folder: Path, copy: Path) -> Path:
    """The folder with a tokenizer of single characters: 94 of them, one mark, and places without a word."""
    copytree(folder, copy)
    spec = {
        "added_tokens": [
            {"id": 94, "content": "<end>", "special": True, "lstrip": False, "rstrip": False}
            | {"single_word": False, "normalized": False}
        ],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": {char: n for n, char in enumerate(ASCII)}, "merges": []},
    }
    (copy / "tokenizer.json").write_text(json.dumps(spec))
    return copy


def test_answers_under_a_grammar_go_on_too(distill: Path, tmp_path: Path) -> None:
    folder = with_words(distill, tmp_path / "model")
    numbers = {"type": "integer", "minimum": 0, "maximum": 999}
    grammar = "start: %json " + json.dumps({"type": "array", "items": numbers, "minItems": 3, "maxItems": 5})
    prompt, sampling = folders.text(8, 15), Sampling(temperature=0.8, grammar=grammar)
    core = open_core(folder, CoreOptions(slots=2))
    whole = finished(core, {0: work(prompt, [], sampling, 100)})[0]
    said = json.loads("".join(ASCII[token] for token in whole))
    assert 3 <= len(said) <= 5
    other = open_core(folder, CoreOptions(slots=4))
    resumed = finished(other, {k: work(prompt, whole[:k], sampling, 100) for k in range(len(whole) + 1)})
    assert [whole[:k] + resumed[k] for k in range(len(whole) + 1)] == [whole] * (len(whole) + 1)


def test_a_grammar_that_asks_for_what_the_vocabulary_lacks_ends_by_name(distill: Path, tmp_path: Path) -> None:
    core = open_core(with_words(distill, tmp_path / "model"), CoreOptions(slots=1))
    core.submit(1, work(folders.text(1, 5), [], Sampling(temperature=0, grammar='start: "ab" "é"'), 9))
    produced = core.step()
    while not any(one.fault for one in produced):
        produced = core.step()
    why = "the grammar can't be kept after token 2 of the answer: no token of the vocabulary can go on with it"
    assert (produced[-1].fault, produced[-1].param) == (why, "grammar")
    assert core.load().running == 0


def test_turns_and_beginnings_are_reused(distill: Path) -> None:
    core, fresh = (open_core(distill, CoreOptions(slots=2)) for _ in range(2))
    first = work(folders.text(1, 30), [], GREEDY, 6)
    answer = finished(core, {1: first})[1]
    second = work(first.prompt_ids + answer + [7, 8], [], GREEDY, 6)
    third = work([*first.prompt_ids[:25], 9], [], GREEDY, 6)
    wanted = {2: second, 3: third}
    assert finished(core, wanted) == finished(fresh, wanted)


def test_incomplete_weights_are_refused(distill: Path, tmp_path: Path) -> None:
    for path in distill.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    whole = dict(tensors)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadModel, match=r"missing keys: model\.layers\.1\.mlp\.up_proj\.weight"):
        open_core(tmp_path, CoreOptions(slots=1))
    whole["model.norm.weight"][3] = float("nan")
    save_file(whole, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadModel, match="holds NaN"):
        open_core(tmp_path, CoreOptions(slots=1))
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(BadModel, match="damaged or cut short"):
        open_core(tmp_path, CoreOptions(slots=1))
