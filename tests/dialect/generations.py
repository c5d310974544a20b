"""A model folder of each generation, small: Pearl's words, DeepSeek's marks, and templates written here that say what the released
ones say (test_golden.py holds them to it)."""

import json
from pathlib import Path
from typing import Any

from holdfast.dialect.open import open_dialect
from holdfast.domain.dialect import Dialect

SHIPPED = Path(__file__).parents[2] / "src/holdfast/shipped/pearl"
GOLDEN = Path(__file__).parent / "golden"
BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
MORE = ["<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>", "<|EOT|>", "｜DSML｜", "<｜latest_reminder｜>", "<｜System｜>"]
_FENCED = """<｜tool▁call▁begin｜>function<｜tool▁sep｜>{{ c.function.name }}
```json
{{ c.function.arguments }}
```<｜tool▁call▁end｜>"""
_R1 = (
    """{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% endif %}{% endfor -%}
{%- set ns = namespace(tool=false, first=true, out=true) -%}
{%- for m in messages -%}
{%- if m.role == 'user' %}<｜User｜>{{ m.content }}{% set ns.tool = false %}
{%- elif m.role == 'assistant' and m.content is none %}{% set ns.tool = false -%}
{%- for c in m.tool_calls %}{% if ns.first %}<｜Assistant｜><｜tool▁calls▁begin｜>{% else %}{{ '\\n' }}{% endif %}{% set ns.first = false -%}
"""
    + _FENCED
    + """{% endfor %}CLOSE
{%- elif m.role == 'assistant' -%}
{%- if ns.tool %}<｜tool▁outputs▁end｜>{{ m.content }}{% else %}<｜Assistant｜>{{ m.content.split('</think>')[-1] }}{% endif %}{{ eos_token }}
{%- set ns.tool = false %}
{%- elif m.role == 'tool' %}{% if ns.out %}<｜tool▁outputs▁begin｜>{% else %}{{ '\\n' }}{% endif %}{% set ns.out = false -%}
<｜tool▁output▁begin｜>{{ m.content }}<｜tool▁output▁end｜>{% set ns.tool = true %}
{%- endif -%}
{%- endfor -%}
{%- if ns.tool %}<｜tool▁outputs▁end｜>{% elif add_generation_prompt %}<｜Assistant｜>OPEN{% endif -%}"""
)
_V31 = """{{ bos_token }}{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor -%}
{%- set ns = namespace(asked=false) -%}
{%- for m in messages -%}
{%- if m.role == 'user' %}<｜User｜>{{ m.content }}{% set ns.asked = true %}
{%- elif m.role == 'assistant' -%}
{%- if ns.asked %}<｜Assistant｜>{% if m.prefix and thinking and not m.tool_calls %}<think>{% else %}</think>{% endif %}{% endif -%}
{%- set ns.asked = false %}{{ (m.content or '').split('</think>', 1)[-1] }}
{%- if m.tool_calls %}<｜tool▁calls▁begin｜>{% for c in m.tool_calls -%}
<｜tool▁call▁begin｜>{{ c.function.name }}<｜tool▁sep｜>{{ c.function.arguments }}<｜tool▁call▁end｜>{% endfor -%}
<｜tool▁calls▁end｜>{% endif %}{{ eos_token }}
{%- elif m.role == 'tool' %}<｜tool▁output▁begin｜>{{ m.content }}<｜tool▁output▁end｜>{% set ns.asked = false %}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and ns.asked %}<｜Assistant｜>{% if thinking %}<think>{% else %}</think>{% endif %}{% endif -%}"""
TEMPLATES = {
    "r1": _R1.replace("CLOSE", "").replace("OPEN", "<think>{{ '\\n' }}"),
    "r1_distill": _R1.replace("CLOSE", "").replace("OPEN", ""),
    "v31": _V31,
}
GENERATIONS = ("pearl", *TEMPLATES, "dsv32", "dsv4", "dsv41")


def golden(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))
    return found


def vocabulary(special: bool = False) -> str:
    """Pearl's, with more marks; in DeepSeek's releases most are not special."""
    spec = json.loads((SHIPPED / "tokenizer.json").read_text("utf-8"))
    added = spec["added_tokens"]
    for token in added[3:]:
        token["special"] = special
    first = max(*(token["id"] for token in added), *spec["model"]["vocab"].values()) + 1
    added += [added[-1] | {"id": first + i, "content": mark} for i, mark in enumerate(MORE)]
    return json.dumps(spec)


def encoder(name: str) -> str:
    """The words of a release's encoder, read off the texts that it wrote."""
    texts = {(case["case"], case["thinking"], case["effort"]): case["text"] for case in golden(name)}
    told = texts["a tool", False, ""].removeprefix(BOS).removeprefix("<｜System｜>")
    words = told[2 : told.index("<｜User｜>")]
    schema = next(line for line in words.splitlines() if line.startswith('{"name": "add"'))
    lines = [f"TOOLS_TEMPLATE = TOOLS_SYSTEM_TEMPLATE = {words.replace(schema, '{tool_schemas}')!r}", "count = len('x')"]
    if name == "dsv4":
        hard = texts["asked", True, "max"].removeprefix(BOS)
        lines.append(f"REASONING_EFFORT_MAX: str = ({hard[: hard.index('<｜User｜>')]!r})")
    if name == "dsv41":
        hard = texts["asked", True, "max"].removeprefix(BOS + "<｜System｜>")
        budget = hard[: hard.index("<｜User｜>")].replace("100 (", "{budget} (")
        lines += [f"REASONING_EFFORT_TEMPLATE = {budget!r}", 'SYSTEM_SP_TOKEN = "<｜System｜>"']
        lines += ['REASONING_EFFORT_MAPPINGS = {"low": 50, "high": 75, "max": 100}', 'DEFAULT_REASONING_EFFORT = "high"']
    return "\n".join(lines)


def folder(place: Path, name: str) -> Path:
    """A model folder of this generation, but for weights."""
    made = place / name
    made.mkdir()
    if name == "pearl":
        return SHIPPED
    (made / "tokenizer.json").write_text(vocabulary(), "utf-8")
    (made / "config.json").write_text('{"eos_token_id": 1}')
    (made / "tokenizer_config.json").write_text(json.dumps({"bos_token": BOS, "eos_token": EOS}), "utf-8")
    if name in TEMPLATES:
        (made / "chat_template.jinja").write_text(TEMPLATES[name], "utf-8")
    else:
        (made / "encoding").mkdir()
        (made / f"encoding/encoding_{name}.py").write_text(encoder(name), "utf-8")
    return made


def dialect_of(place: Path, name: str) -> Dialect:
    return open_dialect(folder(place, name))
