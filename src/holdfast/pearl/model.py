"""The forward pass of a DeepSeek-V2 or -V3 model over one Sheet of rows."""

from pathlib import Path

import torch
from torch import Tensor

from holdfast.pearl.attention import Desk, Reach, Spread, StepView, unit
from holdfast.pearl.build import Builder, head_dims
from holdfast.pearl.cache import LatentCache
from holdfast.pearl.config import ModelConfig, read_config
from holdfast.pearl.graphs import Graphs
from holdfast.pearl.options import CoreOptions
from holdfast.pearl.rope import table
from holdfast.pearl.sheet import Sheet, padded
from holdfast.pearl.weights import Weights

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Model:
    """Weights, cache and buffers, all allocated by `open`. Not thread-safe: one step at a time."""

    def __init__(self, config: ModelConfig, builder: Builder, options: CoreOptions, places: int) -> None:
        device, dtype = torch.device(options.device), DTYPES[options.dtype]
        self.vocab_size, self.eos_ids = config.vocab_size, config.eos_ids
        self.places = places
        self._device = device
        self._embedding = builder.embedding()
        self._head = builder.head()
        self._layers = [(builder.attention(n), builder.feed_forward(n)) for n in range(config.num_hidden_layers)]
        like = torch.zeros((), dtype=dtype, device=device)
        shape = (config.num_hidden_layers, options.slots, places, config.latent_dim)
        self.cache = LatentCache(shape, config.kv_lora_rank, like)
        self._rope = config.qk_rope_head_dim
        self._turns = table(config.rope, self._rope, self.cache.places).to(device=device, dtype=dtype)
        self.rows_max = padded(options.catch_up * options.prefill_chunk_tokens + options.slots)
        self._desk = Desk(self.rows_max, head_dims(config), like)
        self._columns = torch.arange(self.cache.places, device=device)
        fixed = all(feed_forward.fixed for _, feed_forward in self._layers)
        self._graphs = Graphs() if options.graphs and fixed and device.type == "cuda" else None
        self._open, self._shut = like, torch.full_like(like, float("-inf"))

    @classmethod
    def open(cls, model_dir: Path, options: CoreOptions) -> "Model":
        """Load a folder.

        Raises:
            BadModel: the folder is wrong.
        """
        config = read_config(model_dir)
        weights = Weights(model_dir, config.fp8_block)
        places = min(options.context_tokens_max, config.max_position_embeddings)
        with torch.inference_mode():
            builder = Builder(config, weights, torch.device(options.device), DTYPES[options.dtype])
            return cls(config, builder, options, places)

    def forward(self, sheet: Sheet) -> Tensor:
        """Logits [picks, vocab] float32 for the sheet's picks, in order. Latents of all rows are in the cache afterwards."""
        with torch.inference_mode():
            return self._forward(sheet)

    def _forward(self, sheet: Sheet) -> Tensor:
        rows = padded(len(sheet.ids))
        for _ in range(rows - len(sheet.ids)):
            sheet.spare(self.cache)
        numbers = torch.tensor([sheet.ids, sheet.positions, sheet.places]).to(self._device)
        if self._graphs is not None and all(last - first == slots for first, last, _, slots in sheet.parts):
            layout = tuple((*part, self._length(part, sheet)) for part in sheet.parts)
            logits = self._graphs.run(layout, numbers, lambda kept: self._logits(self._layers_over(sheet, kept)))
            return logits[torch.tensor(sheet.picks, device=self._device)]
        x = self._layers_over(sheet, numbers)
        picks = sheet.picks
        if not picks:
            return torch.empty((0, self.vocab_size))
        if picks != list(range(len(picks))) or padded(len(picks)) != rows:
            spares = [0] * (padded(len(picks)) - len(picks))
            x = x.index_select(0, torch.tensor(picks + spares, device=self._device))
        return self._logits(x)[: len(picks)]

    def _layers_over(self, sheet: Sheet, numbers: Tensor) -> Tensor:
        step = self._view(sheet, numbers[1], numbers[2], numbers.shape[1])
        x = self._embedding.index_select(0, numbers[0])
        for attention, feed_forward in self._layers:
            x = feed_forward(attention(x, step, self.cache))
        return x

    def _logits(self, x: Tensor) -> Tensor:
        return self._head.rows(unit(x)).float()

    def _length(self, part: tuple[int, int, int, int], sheet: Sheet) -> int:
        return self.cache.length_for(max(sheet.positions[part[0] : part[1]]) + 1)

    def _view(self, sheet: Sheet, positions: Tensor, places: Tensor, rows: int) -> StepView:
        cos, sin = self._turns.index_select(0, positions).split_with_sizes([self._rope, self._rope], -1)
        spread = self._desk.spread(rows)
        return StepView(
            spread=spread,
            cos=cos,
            sin=sin,
            cos_by_head=cos[:, None],
            sin_by_head=sin[:, None],
            places=places,
            reaches=[self._reach(part, sheet, positions, spread) for part in sheet.parts],
        )

    def _reach(self, part: tuple[int, int, int, int], sheet: Sheet, positions: Tensor, spread: Spread) -> Reach:
        first, last, slot, slots = part
        length = self._length(part, sheet)
        later = self._columns[:length] > positions[first:last, None]
        query, read = spread.query[first:last], spread.read[first:last]
        shape = (last - first, query.shape[1], length)
        query, read = query.view(slots, -1, query.shape[-1]), read.view(slots, -1, read.shape[-1])
        mask = torch.where(later, self._shut, self._open)[:, None]
        return Reach(query, read, mask, shape, self.cache.read(slot, slots, length))
