"""The settings: the page is what the code says, every key is read by somebody, and wrong files are told what is wrong."""

import json
import re
from pathlib import Path

import pytest
from msgspec import structs

from holdfast.domain.settings import BadSettings, Settings, Tenant
from holdfast.domain.settings_text import read, reference, struct_of

ROOT = Path(__file__).parents[1]
# what the code calls a section's struct where it reads it, if not by the section's own name
ALIASES = {
    "restart": "restart|rules",
    "control": "control|place|where",
    "gateway": "gateway|place|self",
    "tenants": "tenant",
}
KEYS = [
    (section.name, field.name)
    for section in structs.fields(Settings)
    for field in structs.fields(struct_of(section.type))
]


def test_the_page_is_the_reference():
    assert (ROOT / "docs" / "settings.md").read_text() == reference(), "run: holdfast settings > docs/settings.md"


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_every_key_is_described_and_read(section, key):
    row = next(line for line in _section(section).splitlines() if line.startswith(f"| `{key}` |"))
    meaning = row.rpartition(" | ")[2]
    assert len(meaning) > 15
    read_as = re.compile(rf"\b(?:{ALIASES.get(section, section)})\.{key}\b")
    assert any(read_as.search(path.read_text()) for path in (ROOT / "src").rglob("*.py")), f"{key} is read by nobody"


def _section(name: str) -> str:
    return re.split(rf"\n## \[{name}(?:\.NAME)?\]\n", reference())[1].partition("\n## [")[0]


def test_an_empty_file_means_all_defaults():
    assert read("") == Settings()


def test_every_default_can_be_written_down():
    lines = []
    for section in structs.fields(Settings):
        kind = struct_of(section.type)
        lines.append(f"[{section.name}]" if kind is section.type else f"[{section.name}.one]")
        for field in structs.fields(kind):
            default = list(field.default) if isinstance(field.default, tuple) else field.default
            if field.default_factory is dict:
                lines.append(f"{field.name} = {{}}")
                continue
            lines.append(f"{field.name} = {json.dumps(default) if isinstance(default, str | list | bool) else default}")
    assert read("\n".join(lines)) == Settings(tenants={"one": Tenant()})


def test_whole_numbers_are_welcome_where_seconds_are_meant():
    assert read("[replica]\ndrain_s = 3").replica.drain_s == 3.0


def test_the_key_of_the_environment_wins():
    assert read('[gateway]\nkey = "a"', key="b").gateway.key == "b"
    assert read('[gateway]\nkey = "a"').gateway.key == "a"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[replica]\ncout = 3", "s.toml: unknown key 'cout' in section [replica]. Did you mean count?"),
        ("[repica]\ncount = 3", "s.toml: unknown section 'repica'. Did you mean [replica]?"),
        ("count = 3", "s.toml: unknown key outside of any section 'count'."),
        ("replica = 3", "s.toml: 'replica' is a section: write [replica] on a line of its own, its keys below."),
        ('[replica]\ncount = "3"', "s.toml: [replica] count: expected int, got str. It must be integer ≥ 0, ≤ 64:"),
        ("[replica]\ncount = 99", "s.toml: [replica] count: expected int <= 64."),
        ("[replica]\ncount = true", "s.toml: [replica] count: expected int, got bool."),
        ('[replica]\nengine = "vlm"', 'It must be "embedded" or "scripted"'),
        ("[replica\n", "s.toml is not TOML: "),
        ("[gateway]\nport = 8001", "s.toml: [gateway] port and [control] port are both 8001"),
        ('[site]\nname = "A B"', "lower-case letters, digits, dashes"),
        ("[probe]\nsilent_s = 1", "[probe] silent_s must be more than twice every_s"),
        ("[failover]\nsilence_floor_s = 30", "[failover] silence_floor_s must not be above silence_cap_s"),
        ("[breaker]\nopen_s = 31", "[breaker] open_s must not be above open_max_s"),
        ("[restart]\nfirst_delay_s = 301", "[restart] first_delay_s must not be above delay_max_s"),
        ("[tenants.acme]\nwieght = 2", "s.toml: unknown key 'wieght' in section [tenants.acme]. Did you mean weight?"),
        ("[tenants]\nweight = 2", "s.toml: [tenants] holds sections: write [tenants.weight] or another name"),
        ('[tenants."A B"]\nweight = 2', "s.toml: [tenants.A B]: a name is 1 to 64 lower-case letters"),
        ('[tenants.acme]\nkeys = "k"', "s.toml: [tenants] keys: expected array, got str. It must be list of texts"),
        ("[tenants.acme]\nmemory_min = 2", "s.toml: [tenants] memory_min: expected float <= 1.0. It must be number"),
        ("[replica]\ntoken_ms = nan", "s.toml: [replica] token_ms: "),
    ],
)
def test_what_cannot_be_used_is_named(text, complaint):
    with pytest.raises(BadSettings) as refused:
        read(text, "s.toml")
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)
