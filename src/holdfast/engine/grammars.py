"""Grammars for engines that carry llguidance themselves, in whatever version, and the trial that tells whether they keep to them.

Ours allow one space or none after a separator in JSON, as patterns of `x-guidance`. Old versions take those for words, and then
write `{"a": ?1}`: no JSON, and nobody is told. Words are read alike by all versions, so words are sent: always one space.
"""

from collections.abc import Sequence

import msgspec

IDS = (6, 5, 4)
TOKENS = 32  # enough for either trial
_PATTERNS = '"item_separator":", ?","key_separator":": ?"'
_WORDS = '"item_separator":", ","key_separator":": "'
_GUIDANCE = f'"x-guidance":{{"whitespace_flexible":false,{_PATTERNS}}}'
_OBJECT = (
    '"type":"object","properties":{"a":{"const":1},"b":{"const":2}},"required":["a","b"],"additionalProperties":false'
)


def plain(grammar: str) -> str:
    """A grammar of ours as every version reads it. (In a schema's own texts the quotes of the pattern would be escaped.)"""
    return grammar.replace(_PATTERNS, _WORDS)


BY_IDS = "start: " + " ".join(f"<[{id}]>" for id in IDS) + "\n"
AS_JSON = plain(f"start: %json {{{_OBJECT},{_GUIDANCE}}}\n")


def verdict(ids: Sequence[int], text: str) -> tuple[bool, str]:
    """Whether both were kept to, and the sentence: the ids that came under BY_IDS, the text under AS_JSON."""
    if tuple(ids[: len(IDS)]) != IDS:
        return False, f"a Lark grammar of {len(IDS)} ids was taken and not kept to"
    try:
        kept = msgspec.json.decode(text.encode()) == {"a": 1, "b": 2}
    except msgspec.DecodeError:
        kept = False
    if not kept:
        return False, f"under a grammar of JSON it said {text[:40]!r}"
    return True, f"a Lark grammar of {len(IDS)} ids and one of JSON were kept to"
