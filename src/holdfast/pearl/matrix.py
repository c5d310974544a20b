"""One weight matrix and the product with it, by the kernel that serves this machine best.

On CPUs oneDNN's prepacked product is used where torch has it: measured 2 to 2.4 times as fast as torch.mm from four rows up
(Zen 5, float32), and a row's result is bitwise the same whatever the number of rows. The operators are those that torch's own
compiler emits; where they are missing, torch.mm does the work. A call costs about 10 us before it multiplies anything, so
small matrices with few rows go through torch.mm, if that gives the same bits here (it does up to 192 columns, where both sum
in one pass), which is tried when the matrix is made.
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

_ROWS_HINT = 32  # the packing is the same for every number of rows but one
_SMALL_WORK = 500_000  # multiplications; below it the packed product's fixed cost weighs more than its speed
_TRIED_ROWS = (4, 8, 12, 16)


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


class SmallMatrix:
    """Plain for few rows, packed for many; only for weights on which the two agree to the bit."""

    def __init__(self, plain: PlainMatrix, packed: PackedMatrix, rows_max: int) -> None:
        self._plain = plain
        self._packed = packed
        self._rows_max = rows_max

    def rows(self, x: Tensor) -> Tensor:
        """x W^T."""
        return self._plain.rows(x) if x.shape[0] <= self._rows_max else self._packed.rows(x)

    def onto(self, base: Tensor, x: Tensor) -> Tensor:
        """base + x W^T."""
        return self._plain.onto(base, x) if x.shape[0] <= self._rows_max else self._packed.onto(base, x)


def packing_works(device: torch.device) -> bool:
    """Whether torch was built with the packed product, and this is a CPU."""
    return device.type == "cpu" and torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def matrix(weight: Tensor, device: torch.device, dtype: torch.dtype) -> Matrix:
    """Take over a float32 weight [out, in]."""
    held = weight.to(device=device, dtype=dtype).contiguous()
    if not packing_works(device):
        return PlainMatrix(held)
    plain, packed = PlainMatrix(held), PackedMatrix(held)
    rows_max = min(_SMALL_WORK // held.numel(), _TRIED_ROWS[-1])
    if rows_max >= _TRIED_ROWS[0] and _agree(plain, packed, held):
        return SmallMatrix(plain, packed, rows_max)
    return packed


def _agree(plain: PlainMatrix, packed: PackedMatrix, weight: Tensor) -> bool:
    """Try both on numbers that fill the mantissa."""
    out, width = weight.shape
    for rows in _TRIED_ROWS:
        x = torch.sin(torch.arange(rows * width, dtype=torch.float32)).view(rows, width).to(weight.dtype)
        base = torch.cos(torch.arange(rows * out, dtype=torch.float32)).view(rows, out).to(weight.dtype)
        if not torch.equal(plain.rows(x), packed.rows(x)) or not torch.equal(plain.onto(base, x), packed.onto(base, x)):
            return False
    return True
