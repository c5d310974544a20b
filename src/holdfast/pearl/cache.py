"""The latent cache: for every layer, slot and place the normalised latent and the rotated key, allocated once.

576 numbers a token and layer in DeepSeek's published shapes, instead of the 40960 that expanded keys and values would take.
"""

import torch
from torch import Tensor

LENGTH_STEP = 16  # attention reads a slot up to the next multiple; places beyond an answer's end are masked
LENGTH_STEP_GPU = 256  # fewer lengths, so fewer graphs
# What one product reads should still be near when it is read again for the values: 512 places of 576 float32 are 1.1 MiB.
NEAR_PLACES = 512
_VIEWS_MAX = 512


class LatentCache:
    """`slots` answers of up to `places` tokens, and one more slot that takes the writes of padding rows.

    Reads come as ready-made views [slots, latent_dim, length] and [slots, length, kv_lora_rank], one pair a layer.
    """

    def __init__(self, shape: tuple[int, int, int, int], kv_lora_rank: int, like: Tensor) -> None:
        """`shape` is (layers, slots, places, latent_dim); `like` gives type and device. Zeroed, so that every read is finite."""
        layers, self.slots, places, self._dim = shape
        near = like.device.type == "cpu"
        self._step = LENGTH_STEP if near else LENGTH_STEP_GPU
        self.near_places = NEAR_PLACES if near else 1 << 40
        self.places = -(-places // self._step) * self._step
        self._kv = kv_lora_rank
        self._held = torch.zeros((layers, self.slots + 1, self.places, self._dim), dtype=like.dtype, device=like.device)
        self._flat = [layer.view(-1, self._dim) for layer in self._held.unbind(0)]
        self._views: dict[tuple[int, int, int], list[tuple[Tensor, Tensor]]] = {}

    @property
    def spare_place(self) -> int:
        """Where padding rows write."""
        return self.slots * self.places

    def place(self, slot: int, position: int) -> int:
        """A token's place in a layer, for `write`."""
        return slot * self.places + position

    def length_for(self, tokens: int) -> int:
        """How far attention reads for an answer of so many tokens."""
        return min(-(-tokens // self._step) * self._step, self.places)

    def write(self, layer: int, places: Tensor, latents: Tensor) -> None:
        """Put `latents` [rows, latent_dim] at `places` [rows]."""
        self._flat[layer].index_copy_(0, places, latents)

    def read(self, slot: int, count: int, length: int) -> list[tuple[Tensor, Tensor]]:
        """For each layer: keys turned for the product with queries, and the latents as values."""
        key = (slot, count, length)
        views = self._views.get(key)
        if views is None:
            if len(self._views) >= _VIEWS_MAX:
                self._views.clear()
            part = self._held[:, slot : slot + count, :length]
            views = [(layer.transpose(1, 2), layer[:, :, : self._kv]) for layer in part.unbind(0)]
            self._views[key] = views
        return views

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Give `target` the first `tokens` of what `source` holds."""
        with torch.inference_mode():
            self._held[:, target, :tokens] = self._held[:, source, :tokens]

    def clear(self, slot: int) -> None:
        """Zero a slot, so that a NaN in it can't reach the next answer through a masked place."""
        with torch.inference_mode():
            self._held[:, slot] = 0
