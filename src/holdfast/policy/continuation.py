"""Continuation: how well can this answer be continued elsewhere, and what is to be done when its replica is lost?

`contract` is said before the first token, in a header: a client may rely on it. `after_loss` is asked each time an attempt
ends without a finish.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from msgspec import Struct

from holdfast.domain.release import Exactness, Hold, Release
from holdfast.domain.request import Finish, Sampling
from holdfast.domain.transcript import Transcript
from holdfast.policy.mixture import special


class Contract(NamedTuple):
    """`word` is exact, fair or no; `why` is half a sentence for the header."""

    word: str
    why: str


_WORDS = ("exact", "fair", "no")  # from the strongest to the weakest
_KEYED = Contract("exact", "noise is keyed by seed and position")
_GREEDY = Contract("exact", "greedy")
_ACROSS = Contract("fair", "greedy, and engines of other kinds on the same weights may go on with it")
_ANEW = Contract("fair", "its penalties count anew where it was cut")
_TEXT = Contract("fair", "continued by text")
_FAIR = Contract("fair", "no token is lost or doubled, the rest is a fair sample")
_LED = {
    plain: Contract(plain.word, f"{plain.why}, and its grammar is led through what was delivered")
    for plain in (_KEYED, _GREEDY, _ANEW, _TEXT, _FAIR)
}
_SAME = {
    one: Contract(one.word, f"{one.why}, and it is made again from its prompt up to where it was cut")
    for one in (_KEYED, _GREEDY)
}
_AGAIN = Contract(
    "fair", "made again from its prompt up to where it was cut, it goes on if that comes out as it was delivered"
)
_NONE = Contract("no", "nobody here can hold it to its grammar")


def contract(sampling: Sampling, release: Release) -> Contract:
    """What a client may expect of an answer that has to move. Under a grammar the whole matches it once, or it is lost."""
    if sampling.grammar and release.grammar is Hold.NONE:
        return _NONE
    if sampling.grammar and release.grammar is Hold.FRESH:
        return _SAME.get(_drawn(sampling, release), _AGAIN)
    if sampling.grammar:
        return _LED[_plain(sampling, release)]
    if release.greedy_across and sampling.temperature == 0 and not (release.by_text or special(sampling)):
        return _ACROSS
    return _plain(sampling, release)


def promise(sampling: Sampling, releases: Sequence[Release]) -> Contract:
    """The weakest contract of those releases that may begin this answer: any of them may be the one that does.

    On a site with engines of several kinds the header is written before it is known which of them answers.
    """
    if len(releases) == 1:
        return contract(sampling, releases[0])
    able = [one for one in releases if not (sampling.grammar and one.grammar is Hold.NONE)]
    found = [contract(sampling, one) for one in able] or [_NONE if sampling.grammar else _FAIR]
    return max(found, key=lambda one: _WORDS.index(one.word))


def _plain(sampling: Sampling, release: Release) -> Contract:
    if release.by_text:
        return _TEXT
    if not release.penalties_whole and (sampling.presence_penalty or sampling.frequency_penalty):
        return _ANEW
    return _drawn(sampling, release)


def _drawn(sampling: Sampling, release: Release) -> Contract:
    """As far as it goes by how its tokens are drawn alone."""
    if release.exactness is Exactness.EXACT:
        return _KEYED
    return _GREEDY if sampling.temperature == 0 and release.exactness is Exactness.GREEDY else _FAIR


class Resume(Struct, frozen=True):
    """Carry on elsewhere with what the client has."""

    why: str


class Complete(Struct, frozen=True):
    """Nothing was left to generate: only the word that it ended was lost."""

    finish: Finish
    why: str


class GiveUp(Struct, frozen=True):
    why: str


def after_loss(
    transcript: Transcript, moves_max: int, now: float, unrepeatable: bool = False
) -> Resume | Complete | GiveUp:
    """What to do with an answer whose attempt ended without a finish. `unrepeatable`: it was to be made again, did not come out
    as it was delivered, and nobody is left who has not tried."""
    asked, count = transcript.asked, len(transcript.delivered_ids)
    if count >= asked.max_tokens:
        return Complete(Finish.LENGTH, f"all {count} tokens were delivered before the replica was lost")
    if unrepeatable:
        return GiveUp(f"it is held to a grammar, and nobody here makes its {count} tokens again as they were delivered")
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
