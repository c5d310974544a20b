"""Wishes: what an operator wants of a site beyond its settings, kept in a file that the supervisor reads at every look.

A command only writes its wish down; nobody waits for the supervisor to have heard it. A supervisor that dies over it leaves
the wish behind, and the next one goes on from what it sees (policy/leaving.py).
"""

from msgspec import Struct


class Wishes(Struct, frozen=True, kw_only=True):
    """`drained` and `condemned`: name of a replica -> why; neither runs. The first is an operator's word, the second the
    supervisor's own, kept here so that the next supervisor does not start again what answered wrongly.

    `pardons` counts how often an operator has let a replica off: deaths before that count no more. `epoch` grows with each
    upgrade: workers, control plane and supervisor of an older one are replaced; replicas only when they are older than
    `replicas_epoch`. `finished_epoch` is the last upgrade that was complete, `refused` why the last one was not begun.

    `count`: how many replicas should serve, by an operator's word; None leaves it to the load or the settings. `scaled`: how
    many the load was last found to need, the supervisor's own, so that the next one does not begin from the settings; 0: unknown.
    """

    drained: dict[str, str] = {}
    condemned: dict[str, str] = {}
    pardons: dict[str, int] = {}
    epoch: int = 0
    replicas_epoch: int = 0
    finished_epoch: int = 0
    refused: str = ""
    count: int | None = None
    scaled: int = 0
