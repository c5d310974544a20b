"""Kinds: the releases of this site, as one worker knows them. On most sites there is one, and nobody has to ask.

A site has several while engines of different kinds serve the same weights (`[engine] mix`), and for a while when an upgrade
brings another release. Which of them may begin an answer, or go on with it, is said in policy/mixture.py.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from holdfast.domain.release import Release
from holdfast.domain.request import Sampling
from holdfast.domain.roster import Roster
from holdfast.policy import mixture

REMEMBERED_MAX = 64


@dataclass
class Kinds:
    """`all`: those that serve here, or will again; the first is the site's own word. The same object while nothing changes.

    `mixed`: replicas of more than one release are connected, or expected: only then an answer's way is asked about.
    """

    all: tuple[Release, ...] = ()
    mixed: bool = False
    _seen: dict[str, Release] = field(default_factory=dict)  # by digest, as last told

    def see(self, roster: Roster, connected: Iterable[Release | None]) -> None:
        """What the roster says, and who is connected."""
        there = {one.digest: one for one in connected if one is not None}
        told = roster.kinds or ((roster.release,) if roster.release is not None else tuple(there.values()))
        if told != self.all:
            self.all = told
        everybody = {one.digest: one for one in told} | there
        self.mixed = len(everybody) > 1
        self._seen.update(everybody)
        while len(self._seen) > REMEMBERED_MAX:
            del self._seen[next(iter(self._seen))]

    def named(self, digest: str) -> Release | None:
        """The release of this digest. One that was never seen here has no weights that are known; None for no digest."""
        if not digest:
            return None
        return self._seen.get(digest) or Release(model="", engine="another engine", digest=digest)

    def closed(self, begun: Release, sampling: Sampling) -> str:
        """Why nobody here will ever go on with an answer that was begun there; empty if somebody may."""
        return mixture.closed(begun, self.all, sampling)

    def strange(self, begun: Release) -> bool:
        """Whether an answer without a token was meant for another model than is served now."""
        return bool(self.all) and not any(mixture.together(begun, one) for one in self.all)
