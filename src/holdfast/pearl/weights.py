"""Reads tensors out of a Hugging Face folder: one safetensors file or shards with an index; bf16, fp16, fp32 or block-scaled fp8.

Nothing is trusted: a missing shard, a shard cut short, a tensor of the wrong shape and a NaN are refused with the name of
the file and the tensor.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from holdfast.pearl.config import read_json
from holdfast.pearl.options import BadModel

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def shard_paths(model_dir: Path) -> dict[str, Path]:
    """Which file holds which tensor. For a single file every tensor is in it, so the table is read from its header.

    Raises:
        BadModel: no weights, an index that is no index, or a file that is missing or damaged.
    """
    if (model_dir / INDEX).exists():
        names = read_json(model_dir / INDEX).get("weight_map")
        if not isinstance(names, dict) or not names:
            raise BadModel(f"{model_dir / INDEX} has no weight_map")
        paths = {str(name): model_dir / str(file) for name, file in names.items()}
    elif (model_dir / SINGLE).exists():
        paths = dict.fromkeys(_names_in(model_dir / SINGLE), model_dir / SINGLE)
    else:
        raise BadModel(f"{model_dir} holds neither {SINGLE} nor {INDEX}: there are no weights to load")
    for path in sorted(set(paths.values())):
        if path.parent != model_dir:
            raise BadModel(f"{model_dir / INDEX} points outside the folder, to {path}")
        if not path.is_file():
            raise BadModel(f"{path} is missing, and {INDEX} says that it holds weights")
    return paths


def _names_in(path: Path) -> list[str]:
    try:
        with safe_open(str(path), framework="pt") as opened:
            return list(opened.keys())
    except (SafetensorError, OSError) as error:
        raise BadModel(f"{path} is damaged or cut short: {error}") from error


class Weights:
    """The tensors of one folder, by name. Files are mapped, and a tensor is read when it is taken."""

    def __init__(self, model_dir: Path, fp8_block: tuple[int, int] | None = None) -> None:
        """Raises BadModel where a file is missing or damaged."""
        self._paths = shard_paths(model_dir)
        self._fp8_block = fp8_block
        self._open: dict[Path, Any] = {}
        for path in sorted(set(self._paths.values())):
            try:
                self._open[path] = safe_open(str(path), framework="pt")
            except (SafetensorError, OSError) as error:
                raise BadModel(f"{path} is damaged or cut short: {error}") from error

    def __contains__(self, name: str) -> bool:
        return name in self._paths

    def take(self, name: str, *shape: int) -> Tensor:
        """One tensor as float32, of exactly this shape.

        Raises:
            BadModel: missing, of another shape or type, or with NaN or infinity in it.
        """
        tensor = self._read(name)
        if tuple(tensor.shape) != shape:
            raise BadModel(
                f"{self._paths[name]}: {name} has shape {list(tensor.shape)}, config.json asks for {list(shape)}"
            )
        if tensor.dtype == torch.float8_e4m3fn:
            tensor = self._unscale(name, tensor)
        elif tensor.dtype not in _FLOATS:
            raise BadModel(f"{self._paths[name]}: {name} is {tensor.dtype}; served are fp32, bf16, fp16 and fp8 e4m3")
        tensor = tensor.float()
        if not bool(torch.isfinite(tensor).all()):
            raise BadModel(f"{self._paths[name]}: {name} holds NaN or infinity: the file is damaged")
        return tensor

    def _read(self, name: str) -> Tensor:
        path = self._paths.get(name)
        if path is None:
            raise BadModel(f"the weights hold no tensor {name}, which config.json asks for")
        try:
            tensor = self._open[path].get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise BadModel(f"{path} does not hold {name}, or is cut short: {error}") from error
        if not isinstance(tensor, Tensor):
            raise BadModel(f"{path}: {name} is not a tensor")
        return tensor

    def _unscale(self, name: str, tensor: Tensor) -> Tensor:
        """Multiply each block by its scale (DeepSeek-V3's README_WEIGHTS: 128 x 128 blocks, `weight_scale_inv`)."""
        rows, columns = self._fp8_block or (128, 128)
        scale_name = f"{name}_scale_inv"
        scale = self._read(scale_name).float()
        wanted = (-(-tensor.shape[0] // rows), -(-tensor.shape[1] // columns))
        if tuple(scale.shape) != wanted:
            raise BadModel(f"{self._paths[scale_name]}: {scale_name} has shape {list(scale.shape)}, not {list(wanted)}")
        spread = scale.repeat_interleave(rows, 0)[: tensor.shape[0]].repeat_interleave(columns, 1)[:, : tensor.shape[1]]
        return tensor.float() * spread
