"""Model folders with random weights, written by transformers, and cores opened on them."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

folders = importlib.import_module("folders")

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def v3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small DeepSeek-V3: 8 experts of which 2, 4 groups of which 2, one shared, first layer dense, vocabulary 128."""
    return folders.deepseek_v3(tmp_path_factory.mktemp("v3"))
