"""Mixture: on a site with engines of several kinds, who may begin an answer, and who may go on with one that is begun?

An answer stays with the release on which its first token was made: another engine draws other tokens, even from the same weights.
There is one exception. Where several engines serve the same weights and their releases say so (`greedy_across`), they may go on
with each other's plain greedy answers: the likeliest token next is the same for all of them, but for ties within the arithmetic's
error. Plain means that the weights alone decide: no penalties and no biases (engines count and clamp each in its own way), no
grammar (their masks differ), no logprobs (one answer would mix numbers of two arithmetics). Which is why an answer that may cross
is `fair` and not `exact` (policy/continuation.py).

When a release has left the site, because an upgrade has brought another build, its answers that have outlived the old build's
drain are inherited by the new build of the same engine on the same weights: cutting them would be worse than what it may change.

Before its first token an answer may go anywhere; one with a grammar to engines that can hold it.
"""

from collections.abc import Sequence

from msgspec import Struct

from holdfast.domain.release import Hold, Release
from holdfast.domain.request import Sampling


class May(Struct, frozen=True):
    why: str


class MayNot(Struct, frozen=True):
    why: str


def may_begin(on: Release, sampling: Sampling) -> May | MayNot:
    """Whether an answer without a token may be given to a replica of this release."""
    if sampling.grammar and on.grammar is Hold.NONE:
        return MayNot(f"{_named(on)} can't hold an answer to a grammar")
    return May("it has no token yet")


def may_continue(begun: Release, on: Release, sampling: Sampling) -> May | MayNot:
    """Whether a replica of `on` may go on with an answer whose first token was made on `begun`."""
    unable = [one for one in (begun, on) if one.grammar is not Hold.LED] if sampling.grammar else []
    if unable:
        return MayNot(f"{_named(unable[0])} can't lead a grammar through what was delivered")
    if begun.digest == on.digest:
        return May("it is the same release")
    which = f"it was begun on {_named(begun)}, and {_named(on)}"
    if not begun.weights or begun.weights != on.weights:
        return MayNot(f"{which} is not known to have the same weights")
    if begun.by_text or on.by_text:
        return MayNot(f"{which} can't be given the same tokens: one of the two takes text only")
    if not (begun.greedy_across and on.greedy_across):
        return MayNot(
            f"{which} is another engine: neither may go on with the other's answers unless both releases say so"
        )
    what = special(sampling)
    if what:
        return MayNot(f"{which} would go on otherwise: {what}")
    return May("it is greedy, and both releases let other engines on the same weights go on with it")


def special(sampling: Sampling) -> str:
    """Why more than the weights decides the next token, or what is told of it; empty for a plain greedy answer."""
    if sampling.temperature != 0:
        return "its tokens are drawn, each engine draws its own"
    if sampling.grammar:
        return "it is held to a grammar, each engine masks in its own way"
    if sampling.presence_penalty or sampling.frequency_penalty:
        return "its tokens are penalised, each engine counts in its own way"
    if sampling.logit_bias:
        return "its tokens are biased, each engine clamps in its own way"
    return "its logprobs were asked for, each engine has its own" if sampling.logprobs >= 0 else ""


def may_inherit(begun: Release, on: Release, sampling: Sampling) -> May | MayNot:
    """Whether `on` may go on with an answer whose release has left the site."""
    verdict = may_continue(begun, on, sampling)
    if isinstance(verdict, May) or begun.engine != on.engine or not begun.weights or begun.weights != on.weights:
        return verdict
    if sampling.grammar and not begun.grammar is on.grammar is Hold.LED:
        return verdict
    return May("its build has left the site, and this is another one of the same engine, on the same weights")


def barred(begun: Release | None, on: Release | None, sampling: Sampling, kinds: Sequence[Release] = ()) -> str:
    """Why an answer must not go to a replica of `on`; empty if it may. `begun`: None while it has no token, or where nobody
    knows; `on`: None before it has told; `kinds`: those that the site serves, none where nobody has told."""
    if on is None:
        return ""
    if begun is None:
        verdict = may_begin(on, sampling)
    elif kinds and all(one.digest != begun.digest for one in kinds):
        verdict = may_inherit(begun, on, sampling)
    else:
        verdict = may_continue(begun, on, sampling)
    return verdict.why if isinstance(verdict, MayNot) else ""


def closed(begun: Release, kinds: Sequence[Release], sampling: Sampling) -> str:
    """Why no kind of this site will ever go on with it, however long it waits; empty if one may."""
    whys = [barred(begun, one, sampling, kinds) for one in kinds]
    return whys[0] if whys and all(whys) else ""


def together(one: Release, other: Release) -> bool:
    """Whether their replicas may stand on one roster: they serve the same model, be it by other engines or in other numbers."""
    model = one.folder or one.weights
    return one.digest == other.digest or bool(model and model == (other.folder or other.weights))


def _named(release: Release) -> str:
    return f"{release.engine} {release.version} (release {release.digest[:8] or 'unknown'})"
