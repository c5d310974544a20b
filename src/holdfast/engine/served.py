"""What is known of an engine before it is asked: where it is, what clients call its model, and what its weights are."""

import hashlib

from msgspec import Struct

from holdfast.domain.engine import Abilities
from holdfast.domain.release import Exactness, Release


class Served(Struct, frozen=True, kw_only=True):
    """`model` is the name that clients ask for; `named` that which the engine knows it by, empty: the only one there.

    `weights` is a digest over the model folder and the settings that change tokens; two replicas with equal ones, of one kind and
    one version, may continue each other's answers.
    """

    url: str
    model: str
    named: str = ""
    key: str = ""
    weights: str = ""
    version: str = "0.0.0"  # of the release
    timeout_s: float = 5.0  # for everything but streams


def release_of(served: Served, abilities: Abilities, exactness: Exactness) -> Release:
    """The release of an engine that has told what it is."""
    said = f"{abilities.kind}|{abilities.version}|{abilities.served_as}|{served.weights}"
    return Release(
        model=served.model,
        engine=abilities.kind,
        digest=hashlib.sha256(said.encode()).hexdigest(),
        exactness=exactness,
        version=served.version,
    )
