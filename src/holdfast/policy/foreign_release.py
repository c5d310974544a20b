"""Foreign release: what does a replica tell of an engine that is not ours, beyond its name and digest?

The adapter knows which build serves which model; what follows from that for answers that have to move is said here, for all of
them: how they are continued, whether a grammar goes along, and whether engines of other kinds may help out.
"""

from msgspec import structs

from holdfast.domain.engine import Abilities, Ability, EngineKind
from holdfast.domain.release import Exactness, Hold, Release

# To all others what was delivered is a prompt, and their penalties count what they make themselves: as long as nobody has seen
# one of them count on after a cut, none is said to.
COUNTS_ON = (EngineKind.EMBEDDED, EngineKind.SCRIPTED)


def completed(
    release: Release, abilities: Abilities, weights: str, greedy_across: bool = False, folder: str = ""
) -> Release:
    """The adapter's release with what its build was found to be able to do.

    `weights`: the digest of what it computes with, empty for an engine that runs elsewhere on a folder that nobody here has seen:
    it then shares the roster with its own kind only. `folder`: the digest of the model folder, where that is another.
    """
    by_text = not (abilities.has(Ability.IDS_IN) and abilities.has(Ability.IDS_OUT))
    hold = Hold.LED if abilities.has(Ability.LED) else Hold.FRESH
    return structs.replace(
        release,
        version=abilities.version or release.version,
        exactness=Exactness.FAIR if by_text else release.exactness,
        weights=weights,
        folder="" if folder == weights else folder,
        by_text=by_text,
        grammar=hold if abilities.has(Ability.GRAMMAR) else Hold.NONE,
        greedy_across=greedy_across and bool(weights) and not by_text,
        penalties_whole=abilities.kind in COUNTS_ON,
    )
