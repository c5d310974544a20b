"""Engines that are programs of somebody else: what one of them can do, how it is run, and what it says while it starts.

A replica is always a process of ours. Where its engine is foreign (vLLM, SGLang, Triton, llama.cpp), that process starts the
engine as its child, or dials one that runs already, and speaks to it for all gateways: so fencing, pings, drains, black boxes
and gRPC health are the same for every engine. See decisions/0029.
"""

from enum import StrEnum

from msgspec import Struct

from holdfast.domain.replica import StartFault


class EngineKind(StrEnum):
    """Who computes. The last five are foreign."""

    EMBEDDED = "embedded"
    SCRIPTED = "scripted"
    VLLM = "vllm"
    SGLANG = "sglang"
    TRITON = "triton"
    LLAMACPP = "llamacpp"
    OPENAI = "openai"


FOREIGN = (EngineKind.VLLM, EngineKind.SGLANG, EngineKind.TRITON, EngineKind.LLAMACPP, EngineKind.OPENAI)


class Ability(StrEnum):
    """What a build may be able to do; found by asking it, once, when it is ready.

    IDS_IN, IDS_OUT: prompts and answers as token ids; without either it is continued by text. SEED: equal requests with equal
    seeds give equal tokens. GRAMMAR: an answer can be held to one. LED: and the grammar can be led through what was delivered.
    PRIORITY: some requests go before others. LOGPROBS: of the chosen token. COUNTERS: it counts its own steps or tokens.
    """

    IDS_IN = "ids in"
    IDS_OUT = "ids out"
    SEED = "seed"
    GRAMMAR = "grammar"
    LED = "grammar led"
    PRIORITY = "priority"
    LOGPROBS = "logprobs"
    COUNTERS = "counters"


class Finding(Struct, frozen=True):
    """One ability, and the sentence that says how it was found."""

    ability: Ability
    has: bool
    why: str


class Abilities(Struct, frozen=True, kw_only=True):
    """What one build can do. `slots` and `context_tokens_max` are 0 where it does not tell."""

    kind: EngineKind
    version: str = ""
    served_as: str = ""  # the model's name there
    findings: tuple[Finding, ...] = ()
    slots: int = 0
    context_tokens_max: int = 0

    def has(self, ability: Ability) -> bool:
        """Whether it was found to have it."""
        return any(one.ability is ability and one.has for one in self.findings)

    def words(self) -> str:
        """For one column of a table: `vllm 0.32.0: ids in, ids out, seed; no grammar, priority`."""
        can = ", ".join(one.ability for one in self.findings if one.has) or "nothing"
        can_not = ", ".join(one.ability for one in self.findings if not one.has)
        return f"{self.kind} {self.version}".strip() + f": {can}" + (f"; no {can_not}" if can_not else "")


class Leave(Struct, frozen=True, kw_only=True):
    """How an engine is ended, once its answers have moved: the signal of its own way, how long that may take, then SIGKILL
    for its whole group."""

    signal: str = "SIGTERM"
    grace_s: float = 10.0


class Launch(Struct, frozen=True, kw_only=True):
    """One engine process, ready to be run. `env` is the whole environment; `files` are written first, relative to its folder.

    `why` explains it, word by word of the command line, in the order of the words: (flag, sentence).
    """

    kind: EngineKind
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    url: str = ""  # where it will listen: http://127.0.0.1:PORT, or grpc://127.0.0.1:PORT
    key: str = ""  # what it asks of callers; random for each boot
    files: tuple[tuple[str, str], ...] = ()
    start_s: float = 600.0  # it must be ready within so many seconds
    leave: Leave = Leave()
    gpus: tuple[int, ...] = ()  # its GPUs; none for CPU
    why: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()


class Progress(Struct, frozen=True):
    """How far a start has come, read from the log: `weights loaded 12/163 shards`. `share` is 0 to 1, or -1: not known."""

    stage: str
    share: float = -1.0


class StartFailure(Struct, frozen=True):
    """Why an engine could not start, read from its log: the code that the replica ends with, and a sentence with the fix."""

    code: StartFault
    why: str
