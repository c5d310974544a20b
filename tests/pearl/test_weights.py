"""The loader: what it reads, and the sentence with which it refuses what is damaged."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folders
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_parity import spoken

from holdfast.pearl.digest import release_digests
from holdfast.pearl.model import Model
from holdfast.pearl.open import open_core
from holdfast.pearl.options import BadModel, CoreOptions
from holdfast.pearl.weights import INDEX, SINGLE, Weights
from holdfast.store.model_folder import weights_of

ONE_SLOT = CoreOptions(slots=1)
TEXT = folders.text(1, 30)


@pytest.fixture
def folder(v3: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    for path in v3.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def logits(folder: Path) -> torch.Tensor:
    return spoken(Model.open(folder, ONE_SLOT), 0, TEXT, [30])


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, folder / SINGLE, metadata={"format": "pt"}
    )


def configure(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def shard(folder: Path) -> None:
    """Spread the weights over two files and an index."""
    tensors = load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    where = {}
    for n in range(2):
        file = f"model-{n + 1:05}-of-00002.safetensors"
        part = {name: tensor for k, (name, tensor) in enumerate(sorted(tensors.items())) if k % 2 == n}
        save_file(part, folder / file, metadata={"format": "pt"})
        where.update(dict.fromkeys(part, file))
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))


def test_shards_give_the_same_logits(folder: Path) -> None:
    whole = logits(folder)
    shard(folder)
    assert torch.equal(logits(folder), whole)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_files_are_read(folder: Path, dtype: torch.dtype) -> None:
    """Arithmetic stays float32, so rounding the file by hand gives the same bits."""
    rewrite(folder, lambda tensors: tensors.update({n: t.to(dtype).float() for n, t in tensors.items()}))
    rounded = logits(folder)
    rewrite(folder, lambda tensors: tensors.update({n: t.to(dtype) for n, t in tensors.items()}))
    assert torch.equal(logits(folder), rounded)


def test_block_scaled_fp8_is_read(folder: Path) -> None:
    """Blocks of 32 x 24, so that both directions have a last block that is cut short."""
    rows, columns = 32, 24
    configure(folder, quantization_config={"quant_method": "fp8", "weight_block_size": [rows, columns]})
    whole, scaled = load_file(folder / SINGLE), {}
    for name, tensor in load_file(folder / SINGLE).items():
        if tensor.dim() != 2 or "embed" in name or "lm_head" in name or name.endswith("gate.weight"):
            scaled[name] = tensor
            continue
        scale = torch.zeros(-(-tensor.shape[0] // rows), -(-tensor.shape[1] // columns))
        stored = torch.zeros(tensor.shape, dtype=torch.float8_e4m3fn)
        for r in range(scale.shape[0]):
            for c in range(scale.shape[1]):
                block = (slice(r * rows, (r + 1) * rows), slice(c * columns, (c + 1) * columns))
                scale[r, c] = tensor[block].abs().max() / 448
                stored[block] = (tensor[block] / scale[r, c]).to(torch.float8_e4m3fn)
                whole[name][block] = stored[block].float() * scale[r, c]
        scaled[name], scaled[f"{name}_scale_inv"] = stored, scale
    save_file(scaled, folder / SINGLE, metadata={"format": "pt"})
    from_fp8 = logits(folder)
    save_file(whole, folder / SINGLE, metadata={"format": "pt"})
    assert torch.equal(from_fp8, logits(folder))


def drop(name: str) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder, lambda tensors: tensors.pop(name))


def cut_short(folder: Path) -> None:
    data = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(data[: len(data) * 2 // 3])


def lose_shard(folder: Path) -> None:
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def point_outside(folder: Path) -> None:
    shard(folder)
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["lm_head.weight"] = "../elsewhere.safetensors"
    (folder / INDEX).write_text(json.dumps(index))


def not_a_number(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.2.mlp.experts.3.up_proj.weight"][1, 1] = float("nan")


def to_integers(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.int32)


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    "config of another kind": (lambda f: configure(f, model_type="gpt2"), "model_type 'gpt2' is not served"),
    "config that is no JSON": (lambda f: (f / "config.json").write_text("{"), "config.json can't be read"),
    "config without a field": (lambda f: configure(f, kv_lora_rank=None), "kv_lora_rank is None"),
    "bias": (lambda f: configure(f, attention_bias=True), "attention_bias is true"),
    "other rope": (lambda f: configure(f, rope_parameters={"rope_type": "llama3"}), "rope_scaling.type is 'llama3'"),
    "other gate": (lambda f: configure(f, scoring_func="softmax"), "scoring_func is 'softmax'"),
    "groups that don't divide": (lambda f: configure(f, n_group=3), "n_group is 3"),
    "too many experts a token": (lambda f: configure(f, num_experts_per_tok=5), "of only 4 experts in reach"),
    "other quantisation": (
        lambda f: configure(f, quantization_config={"quant_method": "awq"}),
        "quant_method is 'awq'",
    ),
    "no weights": (lambda f: (f / SINGLE).unlink(), "there are no weights to load"),
    "weights cut short": (cut_short, "damaged or cut short"),
    "weights of garbage": (lambda f: (f / SINGLE).write_bytes(b"\xff" * 500), "damaged or cut short"),
    "missing tensor": (
        drop("model.layers.1.self_attn.o_proj.weight"),
        "no tensor model.layers.1.self_attn.o_proj.weight",
    ),
    "missing expert": (
        drop("model.layers.1.mlp.experts.5.gate_proj.weight"),
        "no tensor model.layers.1.mlp.experts.5.gate_proj.weight",
    ),
    "missing shard": (lose_shard, "model-00002-of-00002.safetensors is missing"),
    "index pointing outside": (point_outside, "points outside the folder"),
    "shape": (
        lambda f: configure(f, vocab_size=130),
        "embed_tokens.weight has shape [128, 64], config.json asks for [130, 64]",
    ),
    "NaN": (lambda f: rewrite(f, not_a_number), "model.layers.2.mlp.experts.3.up_proj.weight holds NaN"),
    "integers": (lambda f: rewrite(f, to_integers), "model.norm.weight is torch.int32"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_folders_are_refused_with_the_reason(folder: Path, name: str) -> None:
    spoil, reason = SPOILT[name]
    spoil(folder)
    with pytest.raises(BadModel) as caught:
        open_core(folder, ONE_SLOT)
    assert reason in caught.value.why


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="is not a folder"):
        open_core(tmp_path / "nowhere", ONE_SLOT)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (CoreOptions(slots=0), "slots is 0"),
        (CoreOptions(threads=0), "threads is 0"),
        (CoreOptions(prefill_chunk_tokens=0), "prefill_chunk_tokens is 0"),
        (CoreOptions(dtype="int4"), "dtype is 'int4'"),
        (CoreOptions(device="nowhere"), "device 'nowhere'"),
    ],
)
def test_wrong_options_are_refused(v3: Path, options: CoreOptions, field: str) -> None:
    with pytest.raises(BadModel, match=field):
        open_core(v3, options)


def test_extra_tensors_are_left_alone(folder: Path) -> None:
    """Published V3 folders carry a 62nd layer for multi-token prediction."""
    before = logits(folder)
    rewrite(folder, lambda tensors: tensors.update({"model.layers.3.embed_tokens.weight": torch.ones(2, 2)}))
    assert torch.equal(logits(folder), before)
    assert "model.layers.3.embed_tokens.weight" in Weights(folder)


def test_the_digest_tells_what_changes_tokens(folder: Path) -> None:
    def release_digest(folder: Path, build: str, options: CoreOptions) -> str:
        return release_digests(folder, build, options).release

    whole = release_digest(folder, "pearl 1", ONE_SLOT)
    assert release_digest(folder, "pearl 1", CoreOptions(slots=9, threads=2, prefill_chunk_tokens=3)) == whole
    others = [release_digest(folder, "pearl 2", ONE_SLOT), release_digest(folder, "pearl 1", CoreOptions(dtype="bf16"))]
    data = bytearray((folder / SINGLE).read_bytes())
    data[-1] ^= 1
    (folder / SINGLE).write_bytes(bytes(data))
    others.append(release_digest(folder, "pearl 1", ONE_SLOT))
    (folder / "tokenizer.json").write_text("{}")
    others.append(release_digest(folder, "pearl 1", ONE_SLOT))
    assert len({whole, *others}) == 5


def test_engines_of_other_kinds_tell_the_same_weights_from_the_same_folder(folder: Path) -> None:
    first = release_digests(folder, "pearl 1", ONE_SLOT)
    other = release_digests(folder, "pearl 2", CoreOptions(dtype="bf16"))
    assert first.weights == other.weights == weights_of(folder)
    assert first.release != other.release
    (folder / "tokenizer.json").write_text("{}")
    assert weights_of(folder) == release_digests(folder, "pearl 1", ONE_SLOT).weights != first.weights
