"""Tests import their own support modules by plain name."""

import sys
from pathlib import Path

for folder in ("story", "live", "store", "pearl"):
    sys.path.insert(0, str(Path(__file__).parent / folder))
