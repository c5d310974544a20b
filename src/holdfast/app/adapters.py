"""Which adapter speaks to which foreign engine, and what each is told of the model that it speaks for."""

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from holdfast.domain.engine import EngineKind
from holdfast.domain.ports import Clock, ForeignEngine
from holdfast.engine.http import HttpDoor
from holdfast.engine.llamacpp import LlamaCppEngine
from holdfast.engine.openai import OpenAiEngine
from holdfast.engine.serving import Serving
from holdfast.engine.sglang import SglangEngine
from holdfast.engine.spelling import Spelling
from holdfast.engine.triton import TritonEngine, TritonSettings
from holdfast.engine.vllm import VllmEngine


class Address(Struct, frozen=True, kw_only=True):
    """One engine that runs, or soon will, and what it serves. `folder` is the model's, for its tokenizer."""

    kind: EngineKind
    url: str
    serving: Serving
    key: str = ""
    folder: Path | None = None


def adapter(address: Address, clock: Clock) -> ForeignEngine:
    """The adapter for this engine. An event loop must run.

    Raises:
        ValueError: the address is none, or the dialect needs what is missing: a byte-level tokenizer, a package.
    """
    return _MAKERS[address.kind](address, clock)


def _door(address: Address, clock: Clock) -> HttpDoor:
    return HttpDoor(address.url, clock, address.key)


def _openai(address: Address, clock: Clock) -> ForeignEngine:
    """The usual form of such an address ends in /v1, which the adapter says itself."""
    url = address.url.rstrip("/").removesuffix("/v1")
    return OpenAiEngine(HttpDoor(url, clock, address.key), address.serving, _spelling(address))


def _spelling(address: Address) -> Spelling:
    if address.folder is None:
        raise ValueError(f"{address.kind} is continued by text: name the model folder, for its tokenizer")
    return Spelling(address.folder)


def _llamacpp(address: Address, clock: Clock) -> ForeignEngine:
    """Where the folder has a tokenizer, ids that a stream leaves out need not be asked for again."""
    spelt = address.folder is not None and (address.folder / "tokenizer.json").is_file()
    return LlamaCppEngine(_door(address, clock), address.serving, _spelling(address) if spelt else None)


def _triton(address: Address, clock: Clock) -> ForeignEngine:
    serving = address.serving
    settings = TritonSettings(
        model=serving.served_as or TritonSettings().model,
        serve_as=serving.model,
        weights=serving.digest,
        slots=serving.slots,
        context_tokens_max=serving.context_tokens_max,
    )
    spelt = address.folder is not None and (address.folder / "tokenizer.json").is_file()
    return TritonEngine(address.url, clock, settings, address.key, _Tongue(_spelling(address)) if spelt else None)


class _Tongue:
    """A tokenizer as Triton's vLLM backend wants it, which takes text only."""

    def __init__(self, spelling: Spelling) -> None:
        self.text, self.ids = spelling.text_of, spelling.encode


_MAKERS: dict[EngineKind, Callable[[Address, Clock], ForeignEngine]] = {
    EngineKind.VLLM: lambda address, clock: VllmEngine(_door(address, clock), address.serving),
    EngineKind.SGLANG: lambda address, clock: SglangEngine(_door(address, clock), address.serving),
    EngineKind.LLAMACPP: _llamacpp,
    EngineKind.OPENAI: _openai,
    EngineKind.TRITON: _triton,
}
