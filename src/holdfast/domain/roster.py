"""The roster: an immutable answer to "who may take traffic, with what weight". Fleet publishes it, the gateway reads it."""

from msgspec import Struct

from holdfast.domain.release import Release


class Place(Struct, frozen=True, kw_only=True):
    """One replica's entry. `address` is unix:/path or host:port; `boot` changes with every start of its process."""

    replica: str
    address: str
    boot: str
    weight: float = 1.0
    pid: int = 0
    leaving: str = ""  # why its streams are to move elsewhere now, while it still answers; empty: it stays
    box: str = ""  # path of its black box, see Run.box
    model: str = ""  # which model it serves: empty for the site's own, else the name of the smaller one
    digest: str = ""  # of its release, one of Roster.kinds; empty on a site with one kind
    warm: bool = False  # loaded and connected, but it gets work only when the others are lost; its weight is 0


class Roster(Struct, frozen=True, kw_only=True):
    """Published whole each time, never patched; `epoch` only grows."""

    epoch: int = 0
    replicas: int = 0  # how many are wanted, serving or not: who may be suspected is a share of these
    release: Release | None = None
    kinds: tuple[
        Release, ...
    ] = ()  # where engines of several kinds serve: all that do, or will again; `release` is the first
    places: tuple[Place, ...] = ()
