"""What one answer is made of, in token ids only.

Text stops at the gateway's door: it renders the chat template and tokenises once, and from there on a generation is ids in,
ids out. That is what lets any replica of the same release carry on with an answer that another one began: re-tokenising
text is not idempotent, and chat templates strip reasoning.
"""

from enum import StrEnum

from msgspec import Struct

from holdfast.domain.release import Release


class Sampling(Struct, frozen=True, omit_defaults=True, array_like=True):
    """How the next token is chosen. Penalties count the answer so far (delivered tokens included), never the prompt.

    The noise for the token at absolute position p is a function of (seed, p) alone, so an answer that moves to another
    process draws what it would have drawn at home.
    """

    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0
    top_k: int = 0  # 0 keeps all
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int = -1  # -1: none; n >= 0: the chosen token's and the n likeliest
    ignore_eos: bool = False
    grammar: str = ""  # what the whole answer must match, as a Lark grammar over token ids and text; empty: anything


class Generation(Struct, frozen=True, kw_only=True):
    """One answer that is owed to a client, as every layer of the gateway sees it.

    `max_tokens` bounds the whole answer, tokens in `delivered_ids` included. `deadline` is in the Clock's seconds.
    """

    id: str
    prompt_ids: list[int]
    sampling: Sampling = Sampling()
    max_tokens: int = 256
    seed: int = 0
    stop_ids: tuple[int, ...] = ()
    deadline: float = float("inf")
    key: str = ""  # the API key as it came; identify turns it into a tenant
    tenant: str = ""
    delivered_ids: list[int] = []
    replica: str = ""  # set by pick, read by guard and dial
    tried: frozenset[str] = frozenset()  # boots of replicas that this answer has left
    begun: Release | None = (
        None  # on which its first token was made, where that is known: it stays there (policy/mixture.py)
    )
    epoch: int = 0  # of the attempt; failover raises it at every move, and drops chunks of any other
    urgent: bool = False  # a client holds the beginning of this answer: it goes ahead of new work and is never shed
    alone: bool = False  # a suspect (policy/poison.py): it must be the only one of its kind on its replica
    priority: int = 0  # band: higher ones go first, those below 0 are refused first
    expected_tokens: int = 0  # of the whole answer, as admission expects it; 0 before it was asked
    cached_tokens: int = 0  # of the prompt, that a replica is believed to have in its cache
    thinking_max: int = 0  # tokens of reasoning after which it is told to come to an end; 0: no bound
    whole: bool = False  # nobody reads this answer as it comes: it may wait a little, to be begun with others
    body_bytes: int = 0  # of the request that asked for it
    session: str = ""  # the client's name for what belongs together: a hint where its cache is
    client: str = ""  # who is counted when it hammers: its key, or its address
    idempotency: str = ""  # digest of the API key and the client's Idempotency-Key; empty when none was sent
    note: bytes = b""  # the door's own, opaque to layers: how to go on writing this answer in another worker


class TokenLogprob(Struct, frozen=True, array_like=True):
    """Natural-log probability of one token, and of the likeliest at its place, after penalties and bias, before temperature."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Finish(StrEnum):
    """Why an answer ended. STOP: a stop id; LENGTH: max_tokens or the context's end."""

    STOP = "stop"
    LENGTH = "length"


class Chunk(Struct):
    """What rises through the layers: new token ids, or a sign of life while the answer waits (`waiting` holds the why)."""

    ids: list[int]
    finish: Finish | None = None
    logprobs: list[TokenLogprob] | None = None
    cached_tokens: int = (
        0  # of the prompt, found in the engine's cache; told once, with the first ids or the last chunk
    )
    waiting: str = ""
    moves: int = 0  # how often the answer had changed replicas by now; set by failover
    epoch: int = 0  # of the attempt that made it; set by dial


class Outcome(StrEnum):
    """How one call to a replica ended, for those who judge replicas. A client that hangs up says nothing about it: IGNORE."""

    OK = "ok"
    IGNORE = "ignore"
    DROP = "drop"
