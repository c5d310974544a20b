"""Model folders as GGUF: what is written, and what is refused. That llama.cpp computes the same is in tests/engine."""

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from folders import YARN, deepseek_v2, deepseek_v3

from holdfast.cli.main import main
from holdfast.pearl.gguf import write_gguf
from holdfast.pearl.gguf_words import read_words
from holdfast.pearl.options import BadModel
from holdfast.pearl.weights import Weights
from holdfast.store.gguf_head import Head, head_of
from holdfast.store.model_folder import weights_of

SHIPPED = Path(__file__).parents[2] / "src/holdfast/shipped/pearl"
VOCAB = 1280


def folder(path: Path, make: Any = deepseek_v3, **changes: Any) -> Path:
    """A random model with the shipped tokenizer."""
    made: Path = make(path, vocab_size=VOCAB, **changes)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(SHIPPED / name, made / name)
    return made


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, gguf.GGUFReader]:
    there = tmp_path_factory.mktemp("model")
    made = folder(there / "m", rope_parameters={**YARN, "mscale": 0.707})
    write_gguf(made, there / "m.gguf")
    return made, gguf.GGUFReader(there / "m.gguf")


def test_the_geometry_is_that_of_latent_attention_with_one_head_of_keys(written: tuple[Path, gguf.GGUFReader]) -> None:
    _, read = written
    told = {
        name.partition(".")[2]: field.contents() for name, field in read.fields.items() if name.startswith("deepseek2.")
    }
    assert (told["attention.head_count"], told["attention.head_count_kv"]) == (4, 1)
    assert (told["attention.key_length"], told["attention.value_length"]) == (48 + 16, 48)
    assert (told["attention.key_length_mla"], told["attention.value_length_mla"]) == (24 + 16, 16)
    assert (told["expert_group_count"], told["expert_group_used_count"], told["expert_gating_func"]) == (4, 2, 2)
    assert (told["rope.scaling.factor"], told["rope.scaling.original_context_length"]) == (4.0, 64)
    assert told["rope.scaling.yarn_log_multiplier"] == pytest.approx(0.0707)


def test_it_says_which_folder_s_weights_it_was_made_of(written: tuple[Path, gguf.GGUFReader], tmp_path: Path) -> None:
    made, _ = written
    assert head_of(made.with_name("m.gguf")) == Head(0, weights_of(made))
    write_gguf(SHIPPED, tmp_path / "half.gguf", "bf16")
    assert head_of(tmp_path / "half.gguf") == Head(32, weights_of(SHIPPED))


def test_keys_and_values_are_cut_out_of_kv_b_proj_and_experts_stacked(written: tuple[Path, gguf.GGUFReader]) -> None:
    made, read = written
    tensors = {tensor.name: tensor.data for tensor in read.tensors}
    weights = Weights(made)
    both = weights.take("model.layers.1.self_attn.kv_b_proj.weight", 4 * (24 + 16), 48).numpy().reshape(4, 40, 48)
    assert np.array_equal(tensors["blk.1.attn_k_b.weight"], both[:, :24].transpose(0, 2, 1))
    assert np.array_equal(tensors["blk.1.attn_v_b.weight"], both[:, 24:])
    for expert in range(8):
        down = weights.take(f"model.layers.2.mlp.experts.{expert}.down_proj.weight", 64, 32).numpy()
        assert np.array_equal(tensors["blk.2.ffn_down_exps.weight"][expert], down)
    assert "blk.0.ffn_up.weight" in tensors
    assert "blk.0.ffn_gate_inp.weight" not in tensors


def test_matrices_are_halved_where_that_is_asked_and_gates_never(tmp_path: Path) -> None:
    write_gguf(SHIPPED, tmp_path / "half.gguf", "bf16")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "half.gguf").tensors}
    assert kinds["output.weight"] == kinds["blk.1.ffn_up_exps.weight"] == "BF16"
    assert kinds["blk.1.ffn_gate_inp.weight"] == kinds["blk.1.exp_probs_b.bias"] == kinds["output_norm.weight"] == "F32"


def test_a_vocabulary_keeps_its_ids_and_its_markers() -> None:
    words = read_words(SHIPPED, VOCAB + 2)
    assert words.tokens[:2] == ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"]
    assert (words.kinds[0], words.kinds[16], words.kinds[-1], words.tokens[-1]) == (
        "marker",
        "plain",
        "unused",
        "[PAD1281]",
    )
    assert (words.bos, words.eos, words.pad, words.adds_bos) == (0, 1, 2, False)
    assert words.template.startswith("{#- Pearl's chat template")


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        ([{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "use_regex": True}], "smollm"),
        (
            [
                {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}"}},
                {"type": "Split", "pattern": {"Regex": "[一-龥]+"}},
            ],
            "deepseek-v3",
        ),
        ([{"type": "ByteLevel"}], "gpt-2"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_the_splitting_is_told_by_llama_cpps_name(tmp_path: Path, steps: list[dict[str, Any]], name: str) -> None:
    spec = {
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    words = read_words(tmp_path, 3)
    assert (words.splitting, words.merges) == (name, ["a b"])


GREEDY_V2 = {"q_lora_rank": None, "topk_method": "greedy"}
REFUSED = {
    "groups": (deepseek_v2, {"topk_method": "group_limited_greedy"}, "V2's groups, scored by the best"),
    "no query latents": (deepseek_v2, GREEDY_V2, "only with 26 or 27 layers, and this one has 3"),
    "two yarn factors": (deepseek_v3, {"rope_parameters": YARN}, "one yarn factor for mscale and mscale_all_dim"),
    "halves": (deepseek_v3, {"rope_interleave": False}, "only the published order of rotary rows"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_llama_cpp_would_compute_otherwise_is_refused_with_the_reason(tmp_path: Path, case: str) -> None:
    make, changes, why = REFUSED[case]
    made = folder(tmp_path / "m", make, **changes)
    with pytest.raises(BadModel, match=why):
        write_gguf(made, tmp_path / "m.gguf")
    assert list(tmp_path.glob("*.gguf")) == []


def test_the_verb_writes_beside_the_model_and_leaves_nothing_half_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = folder(tmp_path / "m")
    assert main(["gguf", str(made)]) == 0
    assert gguf.GGUFReader(made / "m.gguf").fields["general.name"].contents() == "m"
    assert "m.gguf: " in capsys.readouterr().out
    (made / "m.gguf").unlink()
    (made / "model.safetensors").write_bytes((made / "model.safetensors").read_bytes()[:5000])
    assert main(["gguf", str(made)]) == 1
    assert "damaged or cut short" in capsys.readouterr().err
    assert not [path.name for path in made.iterdir() if "gguf" in path.name]
