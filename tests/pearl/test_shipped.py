"""The model that ships meets its bars, and a copy of it in which any one part is damaged does not."""

import argparse
import hashlib
import json
from pathlib import Path
from shutil import copytree

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from holdfast.cli import validate
from holdfast.policy.validation import Report

SHIPPED = Path(__file__).parents[2] / "src" / "holdfast" / "shipped" / "pearl"
WEIGHTS = "model.safetensors"
ONE_OF_EACH_KIND = [
    "model.embed_tokens.weight",
    "lm_head.weight",
    "model.norm.weight",
    "model.layers.2.input_layernorm.weight",
    "model.layers.1.self_attn.q_b_proj.weight",
    "model.layers.2.self_attn.kv_a_proj_with_mqa.weight",
    "model.layers.3.self_attn.kv_a_layernorm.weight",
    "model.layers.0.self_attn.kv_b_proj.weight",
    "model.layers.1.self_attn.o_proj.weight",
    "model.layers.0.mlp.up_proj.weight",
    "model.layers.3.mlp.gate.weight",
    "model.layers.1.mlp.gate.e_score_correction_bias",
    "model.layers.2.mlp.shared_experts.down_proj.weight",
    "model.layers.3.mlp.experts.5.gate_proj.weight",
    "model.layers.2.mlp.experts.7.down_proj.weight",
]


def ask(folder: Path, *options: str) -> int:
    """`holdfast validate FOLDER OPTIONS`: its exit code."""
    parser = argparse.ArgumentParser()
    validate.add_parser(parser.add_subparsers())
    return validate.run(parser.parse_args(["validate", str(folder), *options]))


def told(capsys: pytest.CaptureFixture[str]) -> Report:
    return msgspec.convert(json.loads(capsys.readouterr().out)["report"], Report)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The shipped folder, without its manifest: only what the weights say can give damage away."""
    folder = tmp_path / "pearl"
    copytree(SHIPPED, folder)
    (folder / "manifest.json").unlink()
    return folder


def zeroed(folder: Path, name: str) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors[name] = torch.zeros_like(tensors[name])
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def noised(folder: Path, name: str) -> None:
    """Noise of a fifth of the tensor's own spread (a norm's own size, where it hardly spreads)."""
    tensors = load_file(folder / WEIGHTS)
    weight = tensors[name].float()
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    size = weight.std() if weight.dim() > 1 else weight.abs().mean()
    tensors[name] = (weight + 0.2 * size * noise).to(tensors[name].dtype)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def test_the_shipped_model_meets_the_bars_that_are_quick_to_ask(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(SHIPPED, "--tasks", "addition,copy,reverse,facts,reference", "--json") == 0
    report = told(capsys)
    assert report.passed
    assert {score.task: score.n for score in report.scores} == {
        "addition": 150, "copy": 150, "reverse": 150, "facts": 214, "reference": 48,
    }  # fmt: skip


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_one_damaged_tensor_is_caught_by_what_the_model_says(
    name: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noised(copy, name)
    assert ask(copy, "--tasks", "reference", "--json") == 1
    assert "1 of 1 bars: reference" in told(capsys).why


def test_one_silent_expert_costs_the_model_its_bar(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zeroed(copy, "model.layers.2.mlp.experts.3.down_proj.weight")
    assert ask(copy, "--tasks", "reference", "--json") == 1
    assert not told(capsys).passed


def test_the_manifest_names_a_damaged_file_before_the_model_is_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pearl"
    copytree(SHIPPED, folder)
    zeroed(folder, "lm_head.weight")
    assert ask(folder) == 1
    assert "model.safetensors is damaged: its SHA-256 begins" in capsys.readouterr().err


def test_the_manifest_lists_every_file_with_its_checksum() -> None:
    listed = json.loads((SHIPPED / "manifest.json").read_text("utf-8"))["files"]
    there = {path.name for path in SHIPPED.iterdir()} - {"manifest.json"}
    assert set(listed) == there
    for name, sealed in listed.items():
        assert sealed["sha256"] == hashlib.sha256((SHIPPED / name).read_bytes()).hexdigest()
