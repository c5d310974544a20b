"""A release is what must be equal for one replica to continue another's answer."""

from enum import StrEnum

from msgspec import Struct


class Exactness(StrEnum):
    """How well an answer can be continued on another replica of the same release.

    EXACT: the same tokens, sampled ones too. GREEDY: the same tokens at temperature 0, a fair sample of the rest otherwise.
    FAIR: no token lost or doubled, the rest a fair sample.
    """

    EXACT = "exact"
    GREEDY = "greedy"
    FAIR = "fair"


class Release(Struct, frozen=True, kw_only=True):
    """Engine build + weights digest + settings."""

    model: str  # the name that clients ask for
    engine: str  # embedded, scripted, vllm, ...
    digest: str  # SHA-256 over engine build, weights, tokenizer and the settings that change tokens; hex
    exactness: Exactness = Exactness.FAIR
    version: str = "0.0.0"
