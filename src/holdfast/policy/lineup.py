"""Line-up: which releases stand on one roster, and what the site is said to serve?

As a rule one: that of the first replica that serves, and a replica of another release stays outside, since it could not go on
with the others' answers. Where `[engine] mix` deals out engines of several kinds, replicas of all releases with the same
weights stand there together, and the roster lists them, so that gateways can keep each answer to its own (policy/mixture.py).

A kind whose replicas are all down is listed until every replica that should run does: answers that were begun on it wait.
"""

from collections.abc import Sequence

from msgspec import structs

from holdfast.domain.release import Release
from holdfast.domain.replica import ReplicaState
from holdfast.domain.roster import Place
from holdfast.policy.leaving import wanted_replicas
from holdfast.policy.mixture import together
from holdfast.policy.standing import UP, Rules, Seen, Standing


def told(seen: Seen, rules: Rules) -> tuple[Release | None, tuple[Release, ...]]:
    """The release that the site is said to serve, and all kinds where there are several."""
    before, group = seen.roster.release, seen.replicas()
    release = first(group, before)
    if not rules.mixed or release is None:
        return release, ()
    up = [one.fact.release for one in group if one.state in UP and one.fact.release is not None]
    here = {one.digest: one for one in reversed(up) if together(one, release)}
    if any(one.state not in UP or one.fact.release is None for one in wanted_replicas(seen)):
        remembered = (*seen.roster.kinds, *(() if before is None else (before,)))
        here = {one.digest: one for one in remembered if together(one, release)} | here
    if before is not None:
        release = here.get(before.digest, release)  # one that still counts goes on being the site's word
    others = sorted((one for one in here.values() if one.digest != release.digest), key=lambda one: one.digest)
    return release, (release, *others) if others else ()


def first(group: Sequence[Standing], otherwise: Release | None) -> Release | None:
    """The release of the first that serves."""
    serving = (one.fact.release for one in group if one.state is ReplicaState.SERVING)
    return next((release for release in serving if release is not None), otherwise)


def speaks(one: Standing, release: Release | None, mixed: bool) -> bool:
    """Whether it may stand beside the others. `mixed`: as an engine of another kind too."""
    own = one.fact.release
    if own is None or release is None or own.digest == release.digest:
        return True
    return mixed and together(own, release)


def marked(places: Sequence[Place], seen: Seen) -> list[Place]:
    """The same places, each with the digest of its release, as far as it is known."""
    digests = {one.fact.boot: one.fact.release.digest for one in seen.standings if one.fact.release is not None}
    return [structs.replace(place, digest=digests.get(place.boot, place.digest)) for place in places]
