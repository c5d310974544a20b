"""Models that pearl's own code does not know (DeepSeek's R1 distills: Qwen2 and Llama), computed by transformers.

The same batch loop and sampler drive it; only the forward pass is another, one answer after the other, with a cache of
transformers' own for each slot. Slower than pearl's own models, and a cache grows as its answer does, up to
slots x context_tokens_max. transformers is an optional part of the installation (`pip install holdfast[distills]`) and takes
seconds to load, so it is looked for only when a folder needs it.
"""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from holdfast.pearl.cache import LENGTH_STEP, NEAR_PLACES
from holdfast.pearl.config import read_json
from holdfast.pearl.options import BadModel, CoreOptions
from holdfast.pearl.sheet import Sheet
from holdfast.pearl.weights import shard_paths

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class KeyValueCache:
    """One transformers cache a slot, cut back when a slot is used anew."""

    def __init__(self, transformers: ModuleType, slots: int, places: int) -> None:
        self._transformers = transformers
        self.near_places = NEAR_PLACES
        self._slots = [transformers.DynamicCache() for _ in range(slots)]
        self._places = places

    @property
    def spare_place(self) -> int:
        """No slot's place: marks padding rows."""
        return len(self._slots) * self._places

    def place(self, slot: int, position: int) -> int:
        """A number that tells slot and position."""
        return slot * self._places + position

    def length_for(self, tokens: int) -> int:
        """As the latent cache's; only the layout of rows depends on it."""
        return min(-(-tokens // LENGTH_STEP) * LENGTH_STEP, self._places)

    def at(self, slot: int, position: int) -> Any:
        """The slot's cache, holding exactly the first `position` tokens."""
        cache = self._slots[slot]
        surplus = cache.get_seq_length() - position
        if surplus > 0:
            cache.crop(-surplus)
        return cache

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Give `target` the first `tokens` of what `source` holds."""
        self.clear(target)
        for layer, held in enumerate(self._slots[source].layers):
            self._slots[target].update(held.keys[:, :, :tokens].clone(), held.values[:, :, :tokens].clone(), layer)

    def clear(self, slot: int) -> None:
        """Forget what a slot holds."""
        self._slots[slot] = self._transformers.DynamicCache()


class ForeignModel:
    """A Brain over a causal language model of transformers."""

    def __init__(self, model: Any, transformers: ModuleType, options: CoreOptions) -> None:
        self._model = model
        self._device = torch.device(options.device)
        self.version = str(transformers.__version__)
        self.vocab_size = int(model.config.vocab_size)
        self.places = min(options.context_tokens_max, int(model.config.max_position_embeddings))
        eos = model.generation_config.eos_token_id
        self.eos_ids = tuple(eos) if isinstance(eos, list) else (eos,) if isinstance(eos, int) else ()
        self.cache = KeyValueCache(transformers, options.slots, self.places)

    @classmethod
    def open(cls, model_dir: Path, options: CoreOptions) -> "ForeignModel":
        """Load a folder.

        Raises:
            BadModel: transformers is not installed, or the folder is damaged or incomplete.
        """
        try:
            transformers = importlib.import_module("transformers")
        except ImportError as error:
            kind = read_json(model_dir / "config.json").get("model_type")
            raise BadModel(f"a {kind} model needs transformers: pip install 'holdfast[distills]' ({error})") from error
        shard_paths(model_dir)
        try:
            model, told = transformers.AutoModelForCausalLM.from_pretrained(
                str(model_dir),
                dtype=_TYPES[options.dtype],
                local_files_only=True,
                output_loading_info=True,
                attn_implementation="eager",
            )
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            raise BadModel(f"transformers can't load {model_dir}: {error}") from error
        for what in ("missing_keys", "mismatched_keys"):
            if told.get(what):
                named = ", ".join(sorted(str(key) for key in told[what])[:3])
                raise BadModel(f"{model_dir}: weights and config.json don't fit, {what.replace('_', ' ')}: {named}")
        for name, weight in model.named_parameters():
            if not bool(torch.isfinite(weight).all()):
                raise BadModel(f"{model_dir}: {name} holds NaN or infinity: the file is damaged")
        return cls(model.eval().to(options.device), transformers, options)

    def forward(self, sheet: Sheet) -> Tensor:
        """See Brain. One answer after the other."""
        found: dict[int, Tensor] = {}
        with torch.inference_mode():
            for first, last, slot, slots in sheet.parts:
                rows = (last - first) // slots
                for own, start in enumerate(range(first, last, rows), slot):
                    if sheet.places[start] != self.cache.spare_place:
                        found.update(self._read(sheet, start, start + rows, own))
            return torch.stack([found[row] for row in sheet.picks]) if sheet.picks else torch.empty(0, self.vocab_size)

    def _read(self, sheet: Sheet, start: int, end: int, slot: int) -> dict[int, Tensor]:
        """Feed rows of one answer; logits of those that are wanted, by row."""
        ids = torch.tensor([sheet.ids[start:end]], device=self._device)
        cache = self.cache.at(slot, sheet.positions[start])
        asked = [row for row in sheet.picks if start <= row < end]
        keep = end - min(asked, default=end - 1)
        logits = (
            self._model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=keep).logits[0].float()
        )
        return {row: logits[row - end] for row in asked}
