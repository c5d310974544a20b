"""The smaller model: a second set of lines, layers and cards in the same worker, that answers on a rung of the ladder.

It is a gateway of its own over the places of the roster that serve the other model; nothing of it meets the site's own lines, so
that no answer can ever move between two models. Tenants, quotas and the board are the same. Its answers are not journalled:
another worker that went on with one would have to know which of two models, with which vocabulary, its ids belong to, and an
answer that is already second best is asked for again soon enough. The header says so.
"""

from collections.abc import Coroutine
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from msgspec import structs

from holdfast.domain.dialect import Dialect
from holdfast.gateway.asker import Asker
from holdfast.gateway.degrade import Degrader
from holdfast.gateway.lines import Lines
from holdfast.gateway.needs import ModelCard, Needs, Smaller


@dataclass(frozen=True)
class SmallerModel:
    """What a worker has to know of it. `name` is the one that its places have in the roster."""

    name: str
    dialect: Dialect
    context_tokens_max: int


@dataclass(frozen=True)
class Second:
    """What serves it in one worker: its side of the door, its lines, and what must run for them."""

    smaller: Smaller
    lines: Lines
    running: tuple[Coroutine[Any, Any, None], ...]


def stand_in(needs: Needs, main: Needs, lines: Lines, degrader: Degrader) -> Smaller:
    """The smaller model's side of the door. It is asked for by the names of the model that it stands in for.

    It takes requests as far as slots are free: what is left over goes to the site's own model, so that both work.
    """
    degrader.smaller_serves = lambda: lines.slots() > 0

    @lru_cache(maxsize=2)
    def renamed(card: ModelCard, for_whom: ModelCard) -> ModelCard:
        aliases = ((for_whom.name, for_whom.thinking_default), *for_whom.aliases)
        return structs.replace(card, aliases=aliases)

    def takes(who: Asker) -> bool:
        return not who.never_degrade and degrader.to_smaller(who.tenant) and not lines.room.fits(1)

    second = replace(
        needs,
        card=lambda: renamed(needs.card(), main.card()),
        degrader=degrader,
        stands_in=needs.card().name,
        streams=None,
        limits=main.limits,
        registry=main.registry,
    )
    return Smaller(second, takes)
