"""What a GGUF file says of a tokenizer: the token table, the merges, and the name of the splitting that comes before them.

llama.cpp knows splittings by name and not by pattern, and whether whole pieces are looked up before anything is merged
(`ignore_merges`) hangs on that name too. Holdfast sends it ids and takes ids, so a splitting that is only near enough
changes no answer; it changes what a text means to its own text routes.
"""

import json
from pathlib import Path
from typing import Any

from msgspec import Struct

from holdfast.pearl.options import BadModel

_WHOLE_PIECES = "tekken"  # looks pieces up whole, single digits: the nearest to a vocabulary of whole words
_DIGITS_AND_WORDS = "smollm"  # single digits, then GPT-2's splitting
_GPT2 = "gpt-2"
_DEEPSEEK_V3 = "deepseek-v3"  # three digits, Chinese and Japanese, then words: V3, R1, V3.1, V3.2


class Words(Struct, frozen=True, kw_only=True):
    """A byte-level vocabulary in id order. `kinds` are plain, marker, added (shown as text) or unused; one for each token."""

    tokens: list[str]
    kinds: list[str]
    merges: list[str]  # "left right", the first ones first
    splitting: str  # llama.cpp's name
    bos: int | None
    eos: int | None
    pad: int | None
    adds_bos: bool
    template: str


def read_words(model_dir: Path, vocab_size: int) -> Words:
    """Read tokenizer.json and what lies beside it. Ids that the model has and the tokenizer has not become unused tokens.

    Raises:
        BadModel: no byte-level BPE tokenizer, more tokens than the model has, or a splitting that llama.cpp has no name for.
    """
    path = model_dir / "tokenizer.json"
    spec = _json(path)
    model = spec.get("model") or {}
    if model.get("type") != "BPE":
        raise BadModel(f"{path} is not a BPE tokenizer: only those are written as GGUF")
    known: dict[int, tuple[str, str]] = {place: (text, "plain") for text, place in model["vocab"].items()}
    for token in spec.get("added_tokens") or []:
        known[token["id"]] = (token["content"], "marker" if token["special"] else "added")
    if max(known) >= vocab_size:
        raise BadModel(f"{path} has a token {max(known)}, and config.json a vocab_size of {vocab_size}")
    table = [known.get(place, (f"[PAD{place}]", "unused")) for place in range(vocab_size)]
    merges = [one if isinstance(one, str) else " ".join(one) for one in model.get("merges") or []]
    settings = _json(model_dir / "tokenizer_config.json", missing_is_empty=True)
    names = {text: place for place, (text, _) in known.items()}
    return Words(
        tokens=[text for text, _ in table],
        kinds=[kind for _, kind in table],
        merges=merges or [_idle_merge(table)],
        splitting=_splitting(path, spec, bool(model.get("ignore_merges"))),
        bos=_place(settings, "bos_token", names),
        eos=_place(settings, "eos_token", names),
        pad=_place(settings, "pad_token", names),
        adds_bos=bool(settings.get("add_bos_token")),
        template=_template(model_dir, settings),
    )


def _json(path: Path, missing_is_empty: bool = False) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        if missing_is_empty:
            return {}
        raise BadModel(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise BadModel(f"{path} can't be read: {error}") from error
    if not isinstance(found, dict):
        raise BadModel(f"{path} must hold a JSON object")
    return found


def _idle_merge(table: list[tuple[str, str]]) -> str:
    """llama.cpp refuses a file without merges; this one joins two markers, which never stand in one piece of text."""
    marker = next((text for text, kind in table if kind == "marker"), table[0][0])
    return f"{marker} {marker}"


def _splitting(path: Path, spec: dict[str, Any], whole_pieces: bool) -> str:
    cut = spec.get("pre_tokenizer") or {}
    steps = cut.get("pretokenizers") or [cut]
    kinds = [step.get("type") for step in steps]
    patterns = json.dumps([step.get("pattern") for step in steps])
    if whole_pieces:
        return _WHOLE_PIECES
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
        return _DIGITS_AND_WORDS
    if kinds == ["ByteLevel"]:
        return _GPT2
    if kinds[:1] == ["Split"] and "N}{1,3}" in patterns and "4E00" in patterns.upper().replace("一", "4E00"):
        return _DEEPSEEK_V3
    raise BadModel(f"{path}: llama.cpp has no name for its pre_tokenizer ({', '.join(map(str, kinds))})")


def _place(settings: dict[str, Any], name: str, names: dict[str, int]) -> int | None:
    token = settings.get(name)
    text = token.get("content") if isinstance(token, dict) else token
    return names.get(text) if isinstance(text, str) else None


def _template(model_dir: Path, settings: dict[str, Any]) -> str:
    path = model_dir / "chat_template.jinja"
    if path.is_file():
        return path.read_text("utf-8")
    found = settings.get("chat_template")
    return found if isinstance(found, str) else ""
