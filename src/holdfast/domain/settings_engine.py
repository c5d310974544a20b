"""The settings of engines that are programs of somebody else, and which of them a replica gets.

What contradicts itself in them is refused by engine_words.py.
"""

import re
from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct, structs

from holdfast.domain.engine import EngineKind

URL = re.compile(r"(https?|grpcs?)://(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?(/[^\s?#@]*)?")

KEY_FILE = "file:"  # a key that begins so is the path of a file that holds it


class EngineSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Engines that are programs of somebody else, run by Holdfast or reached by `[replica] url`. See engines.md."""

    program: Annotated[
        str,
        Meta(
            description="The Python of the engine's own environment, or its binary (`llama-server`, `tritonserver`): "
            "a whole path. An engine that Holdfast runs needs it."
        ),
    ] = ""
    args: Annotated[
        tuple[str, ...],
        Meta(
            description='Further words of its command line, such as `["--kv-cache-dtype", "fp8"]`. They win over those of '
            "the launch profile; words that are Holdfast's own are refused."
        ),
    ] = ()
    env: Annotated[
        tuple[str, ...],
        Meta(
            description='Further variables of its environment, such as `["NCCL_DEBUG=WARN"]`: it inherits few others.'
        ),
    ] = ()
    gpus: Annotated[
        int,
        Meta(ge=0, le=16, description="GPUs of one replica, out of `[replica] devices`. 0: what its profile says."),
    ] = 0
    start_s: Annotated[
        float,
        Meta(ge=0, le=1e5, description="Seconds that it may take to start. 0: by the size of the weights."),
    ] = 0.0
    log_whole: Annotated[
        bool,
        Meta(
            description="Keep every word that an engine says while it serves, for whoever looks for a fault: it may quote "
            "prompts. Without it only levels, places, kinds of errors and figures are kept."
        ),
    ] = False
    key: Annotated[
        str,
        Meta(
            description="What the engines at `[replica] url` and in `mix` ask of callers: sent to each that `keys` does not "
            "name. `file:/PATH`: what that file holds. Those that Holdfast runs get a new key each."
        ),
    ] = ""
    keys: Annotated[
        dict[str, str],
        Meta(
            description='The same for single ones, by url: `{"http://10.0.0.5:30000" = "...", "http://10.0.0.6:30000" = '
            '"file:/run/secrets/other"}`. An empty text: that one gets no key.'
        ),
    ] = {}
    model_name: Annotated[
        str, Meta(description="What the model is called at `[replica] url`. Empty: the only one that is served there.")
    ] = ""
    mix: Annotated[
        tuple[str, ...],
        Meta(
            description="Further engines, dealt out to the replicas in turn after `[replica] engine`: a kind, then `=` and "
            'its program or url, such as `["embedded", "sglang=http://10.0.0.5:30000"]`.'
        ),
    ] = ()
    greedy_across: Annotated[
        bool,
        Meta(
            description="Whether answers without chance (temperature 0) may go on at another kind of engine of the mix. "
            "Other answers never do."
        ),
    ] = False


class Dealt(Struct, frozen=True):
    """Which engine one replica gets: `url` where it runs already, `program` where the settings name one."""

    kind: EngineKind
    program: str = ""
    url: str = ""
    of_mix: bool = False


def urls_of(text: str) -> list[str]:
    """The external engines of `[replica] url`, in order."""
    return [one.strip() for one in text.split(",") if one.strip()]


def outside(url: str, engine: EngineSettings) -> list[str]:
    """The urls of all engines that run already, each once. Raises ValueError for a kind that is none."""
    return list(dict.fromkeys((*urls_of(url), *(one.url for one in map(dealt_mix, engine.mix) if one.url))))


def key_of(url: str, engine: EngineSettings) -> str:
    """The key for the engine at this url as the settings have it, which may be `file:/PATH`; empty for none."""
    return engine.keys.get(url, engine.key)


def dealt_mix(text: str) -> Dealt:
    """One entry of `[engine] mix`. Raises ValueError for a kind that is none."""
    kind, _, where = text.partition("=")
    where = where.strip()
    outside = "://" in where
    return Dealt(
        kind=EngineKind(kind.strip()),
        program="" if outside else where,
        url=where if outside else "",
        of_mix=True,
    )


def unmixed(engine: EngineSettings) -> EngineSettings:
    """The same without the mix: replicas of the smaller model are all of one kind, since their roster tells one release only."""
    return structs.replace(engine, mix=(), greedy_across=False)


def deal(kind: str, url: str, engine: EngineSettings, number: int) -> Dealt:
    """The engine of replica `number`: `[replica] engine` and the mix in turn; each url to one replica, then from the first on."""
    others: Sequence[Dealt] = [dealt_mix(one) for one in engine.mix]
    turn = number % (1 + len(others))
    if turn:
        return others[turn - 1]
    urls = urls_of(url)
    if urls:
        return Dealt(kind=EngineKind(kind), url=urls[number // (1 + len(others)) % len(urls)])
    return Dealt(kind=EngineKind(kind), program=engine.program)
