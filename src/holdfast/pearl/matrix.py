"""One weight matrix and the product with it, by the kernel that serves this machine best.

On CPUs oneDNN's prepacked product is used where torch has it: measured 2 to 2.4 times as fast as torch.mm from four rows up
(Zen 5, float32), and a row's result is bitwise the same whatever the number of rows. The operators are those that torch's own
compiler emits; where they are missing, torch.mm does the work.
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

_ROWS_HINT = 32  # the packing is the same for every number of rows but one


class Matrix(Protocol):
    """`rows` maps [M, in] to [M, out]; `onto` adds the product to what is there, [M, out]."""

    def rows(self, x: Tensor) -> Tensor: ...

    def onto(self, base: Tensor, x: Tensor) -> Tensor: ...


class PlainMatrix:
    """torch's own product; any device."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight
        self._turned = weight.t()

    def rows(self, x: Tensor) -> Tensor:
        """x W^T."""
        return functional.linear(x, self._weight)

    def onto(self, base: Tensor, x: Tensor) -> Tensor:
        """base + x W^T."""
        return torch.addmm(base, x, self._turned)


class PackedMatrix:
    """oneDNN with the weight packed once. x must be contiguous in its last dimension."""

    def __init__(self, weight: Tensor) -> None:
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS_HINT)
        self._product = torch.ops.mkldnn._linear_pointwise.default
        self._product_onto = torch.ops.mkldnn._linear_pointwise.binary

    def rows(self, x: Tensor) -> Tensor:
        """x W^T."""
        product: Tensor = self._product(x, self._packed, None, "none", [], "")
        return product

    def onto(self, base: Tensor, x: Tensor) -> Tensor:
        """base + x W^T."""
        total: Tensor = self._product_onto(x, base, self._packed, None, "add")
        return total


def packing_works(device: torch.device) -> bool:
    """Whether torch was built with the packed product, and this is a CPU."""
    return device.type == "cpu" and torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def matrix(weight: Tensor, device: torch.device, dtype: torch.dtype) -> Matrix:
    """Take over a float32 weight [out, in]."""
    held = weight.to(device=device, dtype=dtype).contiguous()
    if not packing_works(device):
        return PlainMatrix(held)
    return PackedMatrix(held)
