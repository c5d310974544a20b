"""What config.json says of a DeepSeek model, checked field by field before a single weight is read."""

import math
from pathlib import Path

import msgspec
from msgspec import Struct

from holdfast.pearl.options import BadModel

OWN_TYPES = ("deepseek_v2", "deepseek_v3")
FOREIGN_TYPES = ("qwen2", "llama")  # the R1 distills


class Rope(Struct, frozen=True, kw_only=True):
    """Rotary positions. `kind` is default or yarn; the rest is read only for yarn (YaRN, arXiv 2309.00071)."""

    kind: str = "default"
    theta: float = 10000.0
    factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    original_positions: int = 4096
    truncate: bool = True
    attention_factor: float | None = None


class ModelConfig(Struct, frozen=True, kw_only=True):
    """Geometry of a DeepSeek-V2 or -V3 model, in Hugging Face's names. `q_lora_rank` 0 means none."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    moe_intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    q_lora_rank: int
    kv_lora_rank: int
    qk_rope_head_dim: int
    qk_nope_head_dim: int
    v_head_dim: int
    n_routed_experts: int
    n_shared_experts: int
    num_experts_per_tok: int
    n_group: int
    topk_group: int
    routed_scaling_factor: float
    gate: str  # noaux_tc (V3: sigmoid, bias, groups), greedy or group_limited_greedy (V2: softmax)
    norm_topk_prob: bool
    first_k_dense_replace: int
    rms_norm_eps: float
    max_position_embeddings: int
    rope_interleave: bool
    tie_word_embeddings: bool
    rope: Rope
    eos_ids: tuple[int, ...] = ()
    fp8_block: tuple[int, int] | None = None  # rows and columns that share one weight_scale_inv

    @property
    def latent_dim(self) -> int:
        """Numbers that the cache keeps for one token of one layer."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    @property
    def softmax_scale(self) -> float:
        """Factor on q·k, yarn's share included."""
        scale = 1.0 / math.sqrt(self.qk_nope_head_dim + self.qk_rope_head_dim)
        if self.rope.kind == "yarn" and self.rope.mscale_all_dim:
            scale *= math.pow(yarn_mscale(self.rope.factor, self.rope.mscale_all_dim), 2)
        return scale


def yarn_mscale(factor: float, mscale: float) -> float:
    """YaRN's attention temperature for a context stretched by `factor`."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def read_json(path: Path) -> dict[str, object]:
    """A JSON object from a model folder.

    Raises:
        BadModel: missing, unreadable or not an object.
    """
    try:
        value = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        raise BadModel(f"{path} is missing: a model folder in Hugging Face format has one") from None
    except (OSError, msgspec.DecodeError) as error:
        raise BadModel(f"{path} can't be read: {error}") from error
    if not isinstance(value, dict):
        raise BadModel(f"{path} must hold a JSON object")
    return value


def model_type_of(model_dir: Path) -> str:
    """The `model_type` of a folder, one of those that this engine serves.

    Raises:
        BadModel: no such folder, or a type that isn't served.
    """
    if not model_dir.is_dir():
        raise BadModel(f"{model_dir} is not a folder: give the path of a model in Hugging Face format")
    kind = read_json(model_dir / "config.json").get("model_type")
    if kind not in (*OWN_TYPES, *FOREIGN_TYPES):
        served = ", ".join((*OWN_TYPES, *FOREIGN_TYPES))
        raise BadModel(f"{model_dir / 'config.json'}: model_type {kind!r} is not served here; served are {served}")
    return str(kind)


class _Fields:
    """Typed access to config.json, so that a wrong field is told by name."""

    def __init__(self, path: Path, values: dict[str, object]) -> None:
        self.path = path
        self.values = values

    def bad(self, name: str, why: str) -> BadModel:
        return BadModel(f"{self.path}: {name} {why}")

    def count(self, name: str, default: int | None = None, least: int = 1) -> int:
        value = self.values.get(name)
        if value is None:
            value = default
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.bad(name, f"is {value!r}; it must be a whole number of at least {least}")
        return value

    def real(self, name: str, default: float) -> float:
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise self.bad(name, f"is {value!r}; it must be a number")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.bad(name, f"is {value!r}; it must be true or false")
        return value

    def table(self, name: str) -> "_Fields | None":
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.bad(name, "must be an object")
        return _Fields(self.path, value)


def read_config(model_dir: Path) -> ModelConfig:
    """Read and check a DeepSeek folder's config.json.

    Raises:
        BadModel: a field is missing, wrong, or asks for something that isn't served; the sentence names it.
    """
    path = model_dir / "config.json"
    fields = _Fields(path, read_json(path))
    model_type = model_type_of(model_dir)
    _refuse_what_is_not_served(fields, model_type)
    heads = fields.count("num_attention_heads")
    layers = fields.count("num_hidden_layers")
    v3 = model_type == "deepseek_v3"
    config = ModelConfig(
        model_type=model_type,
        vocab_size=fields.count("vocab_size"),
        hidden_size=fields.count("hidden_size"),
        intermediate_size=fields.count("intermediate_size"),
        moe_intermediate_size=fields.count("moe_intermediate_size"),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        q_lora_rank=fields.count("q_lora_rank", 0, 0),
        kv_lora_rank=fields.count("kv_lora_rank"),
        qk_rope_head_dim=fields.count("qk_rope_head_dim", least=2),
        qk_nope_head_dim=fields.count("qk_nope_head_dim"),
        v_head_dim=fields.count("v_head_dim"),
        n_routed_experts=fields.count("n_routed_experts", 0, 0),
        n_shared_experts=fields.count("n_shared_experts", 0, 0),
        num_experts_per_tok=fields.count("num_experts_per_tok", 1),
        n_group=fields.count("n_group", 1),
        topk_group=fields.count("topk_group", 1),
        routed_scaling_factor=fields.real("routed_scaling_factor", 1.0),
        gate="noaux_tc" if v3 else _v2_gate(fields),
        norm_topk_prob=v3 and fields.flag("norm_topk_prob", True),
        first_k_dense_replace=min(fields.count("first_k_dense_replace", 3 if v3 else 0, 0), layers),
        rms_norm_eps=fields.real("rms_norm_eps", 1e-6),
        max_position_embeddings=fields.count("max_position_embeddings"),
        rope_interleave=fields.flag("rope_interleave", True) if v3 else True,
        tie_word_embeddings=fields.flag("tie_word_embeddings", False),
        rope=_rope(fields),
        eos_ids=_eos_ids(model_dir, fields),
        fp8_block=_fp8_block(fields),
    )
    _check_shape(fields, config)
    return config


def _refuse_what_is_not_served(fields: _Fields, model_type: str) -> None:
    for name in ("attention_bias", "mlp_bias"):
        if fields.flag(name, False):
            raise fields.bad(name, "is true; biases are not served (no published DeepSeek model has them)")
    act = fields.values.get("hidden_act", "silu")
    if act != "silu":
        raise fields.bad("hidden_act", f"is {act!r}; only silu is served")
    if fields.count("moe_layer_freq", 1) != 1:
        raise fields.bad("moe_layer_freq", "must be 1: experts in every layer after the dense ones")
    if model_type == "deepseek_v2" and fields.flag("norm_topk_prob", False):
        raise fields.bad(
            "norm_topk_prob", "is true in a deepseek_v2 model, which no published one has; it is not served"
        )
    if model_type == "deepseek_v3":
        for name, wanted in (("scoring_func", "sigmoid"), ("topk_method", "noaux_tc")):
            if fields.values.get(name, wanted) != wanted:
                raise fields.bad(name, f"is {fields.values[name]!r}; a deepseek_v3 model has {wanted!r}")


def _v2_gate(fields: _Fields) -> str:
    gate = fields.values.get("topk_method") or "greedy"
    if gate not in ("greedy", "group_limited_greedy"):
        raise fields.bad("topk_method", f"is {gate!r}; a deepseek_v2 model has greedy or group_limited_greedy")
    return str(gate)


def _rope(fields: _Fields) -> Rope:
    """Both spellings: rope_parameters (transformers 5) and rope_theta beside rope_scaling (the published folders)."""
    table = fields.table("rope_parameters") or fields.table("rope_scaling")
    theta = fields.real("rope_theta", 10000.0)
    if table is None:
        return Rope(theta=theta)
    kind = table.values.get("rope_type") or table.values.get("type") or "default"
    theta = table.real("rope_theta", theta)
    if kind == "default":
        return Rope(theta=theta)
    if kind != "yarn":
        raise fields.bad("rope_scaling.type", f"is {kind!r}; served are default and yarn")
    positions = table.count("original_max_position_embeddings", fields.count("max_position_embeddings"))
    stretched = fields.count("max_position_embeddings") / positions
    given = table.values.get("attention_factor")
    return Rope(
        kind="yarn",
        theta=theta,
        factor=table.real("factor", stretched),
        beta_fast=table.real("beta_fast", 32.0) or 32.0,
        beta_slow=table.real("beta_slow", 1.0) or 1.0,
        mscale=table.real("mscale", 0.0),
        mscale_all_dim=table.real("mscale_all_dim", 0.0),
        original_positions=positions,
        truncate=table.flag("truncate", True),
        attention_factor=None if given is None else table.real("attention_factor", 1.0),
    )


def _eos_ids(model_dir: Path, fields: _Fields) -> tuple[int, ...]:
    values = fields.values
    extra = model_dir / "generation_config.json"
    found = (read_json(extra) if extra.exists() else {}).get("eos_token_id", values.get("eos_token_id"))
    listed = found if isinstance(found, list) else [found]
    return tuple(token for token in listed if isinstance(token, int))


def _fp8_block(fields: _Fields) -> tuple[int, int] | None:
    table = fields.table("quantization_config")
    if table is None:
        return None
    method = table.values.get("quant_method")
    if method != "fp8":
        raise fields.bad("quantization_config.quant_method", f"is {method!r}; only fp8 (block-scaled e4m3) is served")
    size = table.values.get("weight_block_size", [128, 128])
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
        raise fields.bad("quantization_config.weight_block_size", f"is {size!r}; it must be two whole numbers")
    return size[0], size[1]


def _check_shape(fields: _Fields, config: ModelConfig) -> None:
    if config.qk_rope_head_dim % 2:
        raise fields.bad("qk_rope_head_dim", "must be even")
    if config.first_k_dense_replace == config.num_hidden_layers:
        return
    experts, groups = config.n_routed_experts, config.n_group
    if experts < 1 or config.n_shared_experts < 1:
        raise fields.bad("n_routed_experts and n_shared_experts", "must be at least 1 where layers have experts")
    grouped = config.gate != "greedy"
    if grouped and (experts % groups or config.topk_group > groups):
        raise fields.bad("n_group", f"is {groups}; it must divide {experts} experts and be at least topk_group")
    if config.gate == "noaux_tc" and experts // groups < 2:
        raise fields.bad("n_group", f"is {groups}; a group is scored by its two best of at least two experts")
    choice = experts // groups * config.topk_group if grouped else experts
    if config.num_experts_per_tok > choice:
        raise fields.bad("num_experts_per_tok", f"is {config.num_experts_per_tok}, of only {choice} experts in reach")
