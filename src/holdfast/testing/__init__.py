"""For those who write adapters: the contract that every engine adapter keeps, as stories that pytest plays before any stage.

Shipped, so that an adapter in another package is held to the same sentences as ours. Needs the extra `testing` (pytest); nothing
else in the house imports this room. How to use it: docs/adapters.md.
"""

import pytest

pytest.register_assert_rewrite(
    *(f"holdfast.testing.{name}" for name in ("story", "answers", "mishaps", "learning", "lines"))
)
