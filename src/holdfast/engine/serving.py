"""What an adapter is told of the model that it speaks for, by whoever started the engine or was given its address."""

from msgspec import Struct

from holdfast.domain.engine import EngineKind
from holdfast.domain.release import Exactness, Release


class Serving(Struct, frozen=True, kw_only=True):
    """One model in one engine. 0 and empty: not known, and asked of the engine where it can tell.

    `model` is the name that our clients ask for, `served_as` its name there. `digest` stands for build, weights, tokenizer and
    the settings that change tokens. `priority`: it was started so that some requests go before others, which can't be found by
    asking. `answer_s`: seconds in which the engine answers what is asked of it beside its streams. `exactness` is what its
    arithmetic allows: GREEDY where a token does not depend on what else is in the batch but for differences that flip near ties
    alone, as in float32; FAIR in 16 bits (docs/vllm.md has both measured). `outside`: nobody of ours has started it, so it may
    come back as another.
    """

    model: str
    digest: str
    served_as: str = ""
    vocab_size: int = 0
    context_tokens_max: int = 0
    slots: int = 0
    eos_ids: tuple[int, ...] = ()
    priority: bool = False
    answer_s: float = 5.0
    exactness: Exactness = Exactness.GREEDY
    outside: bool = False

    def release(self, kind: EngineKind) -> Release:
        """The release of an engine of this kind that serves it."""
        return Release(model=self.model, engine=kind, digest=self.digest, exactness=self.exactness)
