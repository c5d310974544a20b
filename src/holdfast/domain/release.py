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


class Hold(StrEnum):
    """How an engine holds an answer to a grammar. LED: wherever it was cut, since the grammar can be led through what was
    delivered. FRESH: only one that it makes from its first token to its last. NONE: not at all."""

    LED = "led"
    FRESH = "fresh"
    NONE = "none"


class Release(Struct, frozen=True, kw_only=True):
    """Engine build + weights digest + settings.

    `digest` says who may continue whose answers. `weights` says who serves the same weights: equal for engines of different
    kinds on one model folder, empty where nobody knows. `folder` is set where an engine serves other files of that folder than
    its weights, such as a quantised GGUF: the same model, in other numbers. How far such engines may help each other out:
    policy/mixture.py.
    """

    model: str  # the name that clients ask for
    engine: str  # embedded, scripted, vllm, ...
    digest: str  # SHA-256 over engine build, weights, tokenizer and the settings that change tokens; hex
    exactness: Exactness = Exactness.FAIR
    version: str = "0.0.0"
    weights: str = ""  # SHA-256 of what decides tokens besides the engine: configuration, tokenizer, weights; hex
    folder: str = ""  # SHA-256 that `weights` would be if these were the folder's own; empty: they are
    by_text: bool = False  # it takes no token ids: what was delivered is given to it as text, and may be cut otherwise
    grammar: Hold = Hold.LED
    greedy_across: bool = False  # it and other engines on the same weights may go on with each other's greedy answers
    penalties_whole: bool = True  # penalties count what was delivered before a cut too, and not only what comes after
