"""What a model folder is, as far as starting an engine on it must know: which DeepSeek generation, how big, in which numbers.

Told from config.json and from the names and sizes of the files; no weight is read. Sources: DeepSeek's published configs
(DeepSeek-V3's inference/configs, V3.2-Exp's inference/config_671B_v3.2.json) and transformers' configuration classes
`deepseek_v2`, `_v3`, `_v32`, `_v4`. V3.1 has V3's architecture and is known by the scales of its weights (`ue8m0`); where
two models differ in nothing that a launch depends on, as R1 and V3 do, they are one here.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

GIB = 1024**3
TINY_BYTES = 2 * GIB  # below: a model made for tests, such as the one that ships
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


class Family(StrEnum):
    """DeepSeek's generations, as far as engines are started differently for them."""

    V2_LITE = "DeepSeek-V2-Lite"
    V2 = "DeepSeek-V2"
    V3 = "DeepSeek-V3/R1"
    V31 = "DeepSeek-V3.1"
    V32 = "DeepSeek-V3.2"
    V4_FLASH = "DeepSeek-V4-Flash"
    V4_PRO = "DeepSeek-V4-Pro"
    V41 = "DeepSeek-V4.1"
    DISTILL_QWEN = "R1-Distill-Qwen"
    DISTILL_LLAMA = "R1-Distill-Llama"
    TINY = "a small model of DeepSeek's architecture"
    OTHER = "another model"


DISTILLS = (Family.DISTILL_QWEN, Family.DISTILL_LLAMA)
SPARSE = (Family.V32, Family.V4_FLASH, Family.V4_PRO, Family.V41)  # attention through an indexer


class ModelFile(Struct, frozen=True):
    """A file of the folder: its name and bytes."""

    name: str
    size: int


class ModelFacts(Struct, frozen=True, kw_only=True):
    """What a folder holds. Numbers that config.json does not tell are 0.

    `shards`: files of weights. `gguf`: the file that llama.cpp opens, and the bytes of all its parts. `quantised`: fp8, awq, ...;
    empty for plain numbers. `cache_bytes_per_token`: of all layers, in 16-bit numbers, before it is shared out among GPUs.
    `latent`: MLA's (kv_lora_rank, qk_rope_head_dim). `rope_plain`: positions are rotated without stretching. `gate_named`:
    topk_method is told.
    """

    family: Family = Family.OTHER
    architecture: str = ""
    weights_bytes: int = 0
    shards: int = 0
    gguf: str = ""
    gguf_bytes: int = 0
    quantised: str = ""
    numbers: str = ""  # torch_dtype
    context_tokens: int = 0
    layers: int = 0
    heads: int = 0
    heads_kv: int = 0
    experts: int = 0
    latent: tuple[int, int] = (0, 0)
    cache_bytes_per_token: int = 0
    rope_plain: bool = True
    gate_named: bool = False
    own_code: bool = False  # config.json names Python of the folder (auto_map)

    @property
    def mla(self) -> bool:
        """Whether its attention keeps one latent for all heads, so that every GPU of a group holds the whole cache."""
        return self.latent[0] > 0

    def named(self) -> str:
        """For a sentence: `DeepSeek-V3/R1, fp8, 163 files, 641.3 GiB`. What has no weights but a GGUF is named by that."""
        if self.gguf and not self.shards:
            return f"{self.family}, GGUF, {gib(self.gguf_bytes)}"
        numbers = self.quantised or self.numbers or "numbers not told"
        files = f"{self.shards} file{'' if self.shards == 1 else 's'}"
        return f"{self.family}, {numbers}, {files}, {gib(self.weights_bytes)}"


def gib(size: float) -> str:
    """Bytes in words."""
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / 1024**2:.1f} MiB"


def facts_of(config: Mapping[str, object], files: Sequence[ModelFile]) -> ModelFacts:
    """The facts of a folder, from its parsed config.json ({} where there is none) and its files."""
    gguf = sorted(one.name for one in files if one.name.endswith(".gguf"))
    weights = [one for one in files if one.name.endswith(WEIGHTS)]
    text = _text_of(config)
    size = sum(one.size for one in weights)
    gguf_size = sum(one.size for one in files if one.name.endswith(".gguf"))
    latent = (_count(text, "kv_lora_rank"), _count(text, "qk_rope_head_dim"))
    heads_kv = _count(text, "num_key_value_heads")
    return ModelFacts(
        family=_family(config, text, size or gguf_size),
        architecture=_architecture(config),
        weights_bytes=size,
        shards=len(weights),
        gguf=gguf[0] if gguf else "",
        gguf_bytes=gguf_size,
        quantised=_quantised(config, gguf),
        numbers=str(config.get("torch_dtype") or config.get("dtype") or ""),
        context_tokens=_count(text, "max_position_embeddings"),
        layers=_count(text, "num_hidden_layers"),
        heads=_count(text, "num_attention_heads"),
        heads_kv=heads_kv,
        experts=_count(text, "n_routed_experts"),
        latent=latent if latent[0] else (0, 0),
        cache_bytes_per_token=_cache_bytes(text, latent, heads_kv),
        rope_plain=_rope_plain(text),
        gate_named=bool(text.get("topk_method")),
        own_code=bool(config.get("auto_map")),
    )


def _text_of(config: Mapping[str, object]) -> Mapping[str, object]:
    """The part that describes the language model: models that see keep it apart."""
    inner = config.get("text_config") or config.get("language_config")
    return {**config, **inner} if isinstance(inner, Mapping) else config


def _architecture(config: Mapping[str, object]) -> str:
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""


def _count(values: Mapping[str, object], name: str) -> int:
    value = values.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _family(config: Mapping[str, object], text: Mapping[str, object], size: int) -> Family:
    kind = str(config.get("model_type") or "")
    layers, hidden = _count(text, "num_hidden_layers"), _count(text, "hidden_size")
    if kind.startswith("deepseek") and 0 < size < TINY_BYTES and hidden < 1024:
        return Family.TINY
    if kind.startswith("deepseek_v41"):
        return Family.V41
    if kind.startswith("deepseek_v4"):
        return Family.V4_PRO if layers > 50 else Family.V4_FLASH
    if kind == "deepseek_v32" or (kind == "deepseek_v3" and _count(text, "index_topk")):
        return Family.V32
    if kind == "deepseek_v3":
        quantisation = config.get("quantization_config")
        scales = quantisation.get("scale_fmt") if isinstance(quantisation, Mapping) else None
        return Family.V31 if scales == "ue8m0" else Family.V3
    if kind == "deepseek_v2":
        return Family.V2 if _count(text, "q_lora_rank") else Family.V2_LITE
    return {"qwen2": Family.DISTILL_QWEN, "llama": Family.DISTILL_LLAMA}.get(kind, Family.OTHER)


def _quantised(config: Mapping[str, object], gguf: Sequence[str]) -> str:
    table = config.get("quantization_config")
    if isinstance(table, Mapping):
        return str(table.get("quant_method") or "quantised").lower()
    return "gguf" if gguf and not config else ""


def _cache_bytes(text: Mapping[str, object], latent: tuple[int, int], heads_kv: int) -> int:
    layers = _count(text, "num_hidden_layers")
    if latent[0]:
        return 2 * layers * sum(latent)
    hidden, heads = _count(text, "hidden_size"), _count(text, "num_attention_heads")
    width = _count(text, "head_dim") or (hidden // heads if heads else 0)
    return 2 * 2 * layers * (heads_kv or heads) * width


def _rope_plain(text: Mapping[str, object]) -> bool:
    """Both spellings: rope_parameters (transformers 5) and rope_scaling (the published folders)."""
    table = text.get("rope_parameters") or text.get("rope_scaling")
    if not isinstance(table, Mapping):
        return True
    return str(table.get("rope_type") or table.get("type") or "default") == "default"
