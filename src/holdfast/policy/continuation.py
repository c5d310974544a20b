"""Continuation: how well can this answer be continued elsewhere, and what is to be done when its replica is lost?

`contract` is said before the first token, in a header: a client may rely on it. `after_loss` is asked each time an attempt
ends without a finish.
"""

from hashlib import blake2b
from typing import NamedTuple

from msgspec import Struct

from holdfast.domain.release import Exactness
from holdfast.domain.request import Finish, Sampling
from holdfast.domain.transcript import Transcript


class Contract(NamedTuple):
    """`word` is exact, fair or no; `why` is half a sentence for the header."""

    word: str
    why: str


def _both(word: str, why: str) -> tuple[Contract, Contract]:
    """Without a grammar, and with one. Made once: every request says one of them."""
    return Contract(word, why), Contract(word, f"{why}, and its grammar is led through what was delivered")


_KEYED = _both("exact", "noise is keyed by seed and position")
_GREEDY = _both("exact", "greedy")
_FAIR = _both("fair", "no token is lost or doubled, the rest is a fair sample")


def contract(sampling: Sampling, exactness: Exactness) -> Contract:
    """What a client may expect of an answer that has to move. Under a grammar the whole matches it once, in either case."""
    if exactness is Exactness.EXACT:
        plain, led = _KEYED
    elif sampling.temperature == 0 and exactness is Exactness.GREEDY:
        plain, led = _GREEDY
    else:
        plain, led = _FAIR
    return led if sampling.grammar else plain


class Resume(Struct, frozen=True):
    """Carry on elsewhere with what the client has."""

    why: str


class Complete(Struct, frozen=True):
    """Nothing was left to generate: only the word that it ended was lost."""

    finish: Finish
    why: str


class GiveUp(Struct, frozen=True):
    why: str


def after_loss(transcript: Transcript, moves_max: int, now: float) -> Resume | Complete | GiveUp:
    """What to do with an answer whose attempt ended without a finish."""
    asked, count = transcript.asked, len(transcript.delivered_ids)
    if count >= asked.max_tokens:
        return Complete(Finish.LENGTH, f"all {count} tokens were delivered before the replica was lost")
    if now >= asked.deadline:
        return GiveUp("the request's deadline has passed")
    if transcript.moves >= moves_max:
        return GiveUp(f"the answer has moved {transcript.moves} times, the limit")
    return Resume(f"continues after token {count}")


def derived_seed(seed: int, position: int) -> int:
    """The seed for an engine whose random numbers run on from token to token, of an answer carried on at `position`.

    0 to 2^63 - 1: the first 63 bits of BLAKE2b-64 over the text `SEED:POSITION`, both in decimal. Were the seed itself sent
    again, the rest would repeat the draws that made the beginning, and would be no fair sample.
    """
    return int.from_bytes(blake2b(f"{seed}:{position}".encode(), digest_size=8).digest(), "big") >> 1


def pause_s(fruitless: int) -> float:
    """How long to rest after `fruitless` attempts in a row that brought no token, once every replica had its turn.

    Doubles from 50 ms to 1 s: short enough for a restart to be met at once, long enough not to hammer a sick fleet. It is
    also the rhythm of the keep-alive comments.
    """
    return min(1.0, 0.05 * 2.0 ** min(fruitless - 1, 10))
