"""Settings as text: TOML in, and the reference page out.

`holdfast settings` prints `reference()`, docs/settings.md holds the same text and a test compares them, so no key can be
added without its sentence. A file that can't be believed whole is refused whole: a misspelt key is a wish that silently did
not come true.
"""

import difflib
import re
import tomllib
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import structs

from holdfast.domain.engine_words import contradiction
from holdfast.domain.settings import BadSettings, Control, Settings
from holdfast.domain.settings_door import Gateway

KINDS = {
    int: "integer",
    float: "number",
    str: "text",
    bool: "true or false",
    tuple[str, ...]: "list of texts",
    dict[str, str]: "table of texts",
}
MEMBER = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
PAGE_HEAD = """# Settings

Holdfast reads one TOML file, `holdfast.toml` in the current folder unless another is named (`holdfast up my.toml`).
Every key is optional; without a file all defaults hold. Unknown keys are refused. Units stand last in a name: `_s` is
seconds, `_ms` milliseconds, `_bytes_max` a largest number of bytes.

The API key may also come from the environment variable `HOLDFAST_KEY`, which wins over `[gateway] key`.
"""


def read(text: str, source: str = "holdfast.toml", key: str = "") -> Settings:
    """Settings from TOML text. `key`, when not empty, wins over [gateway] key (it comes from HOLDFAST_KEY).

    Raises:
        BadSettings: the text is not TOML, or a section or key is unknown, of the wrong type or out of range.
    """
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadSettings(f"{source} is not TOML: {error}.") from None
    _refuse_unknown(tree, source)
    try:
        settings = msgspec.convert(tree, Settings)
    except msgspec.ValidationError as error:
        raise BadSettings(f"{source}: {_told(str(error))}") from None
    if key:
        settings = structs.replace(settings, gateway=structs.replace(settings.gateway, key=key))
    _refuse_contradictions(settings, source)
    return settings


def _refuse_unknown(tree: dict[str, Any], source: str) -> None:
    sections = {field.name: struct_of(field.type) for field in structs.fields(Settings)}
    for name, body in tree.items():
        if name not in sections:
            what = "section" if isinstance(body, dict) else "key outside of any section"
            raise BadSettings(f"{source}: unknown {what} {name!r}. {_suggest(name, tuple(sections), '[{}]')}")
        if not isinstance(body, dict):
            raise BadSettings(f"{source}: {name!r} is a section: write [{name}] on a line of its own, its keys below.")
        keys = tuple(field.name for field in structs.fields(sections[name]))
        for section, each in _named(name, body, source):
            for key in each:
                if key not in keys:
                    said = _suggest(key, keys, "{}")
                    raise BadSettings(f"{source}: unknown key {key!r} in section [{section}]. {said}")


def struct_of(kind: Any) -> type[msgspec.Struct]:
    """The struct of a section's keys; of a family of sections, such as tenants, that of each member."""
    members = get_args(kind)
    found: type[msgspec.Struct] = members[1] if members else kind
    return found


def _named(name: str, body: dict[str, Any], source: str) -> list[tuple[str, dict[str, Any]]]:
    """The sections that a section stands for, with their names: itself, or each member of a family."""
    family = {field.name for field in structs.fields(Settings) if get_args(field.type)}
    if name not in family:
        return [(name, body)]
    for member, each in body.items():
        if not isinstance(each, dict):
            raise BadSettings(
                f"{source}: [{name}] holds sections: write [{name}.{member}] or another name, its keys below."
            )
        if not MEMBER.fullmatch(member):
            raise BadSettings(
                f"{source}: [{name}.{member}]: a name is 1 to 64 lower-case letters, digits, dashes, dots."
            )
    return [(f"{name}.{member}", each) for member, each in body.items()]


def _suggest(wrong: str, known: tuple[str, ...], form: str) -> str:
    near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.5)
    if near:
        return f"Did you mean {form.format(near[0])}?"
    return f"Known: {', '.join(form.format(name) for name in known)}."


def _told(error: str) -> str:
    """msgspec's sentence, with its path `$.section.key` in the words of the file, and what the key may be."""
    message, _, path = error.partition(" - at `$.")
    section, _, key = path.rstrip("`").replace("[...]", "").partition(".")
    kinds = {field.name: struct_of(field.type) for field in structs.fields(Settings)}
    section, key = section.partition("[")[0], key.rpartition(".")[2].partition("[")[0]
    allowed, meaning = _described(get_type_hints(kinds[section], include_extras=True)[key])
    message = message.replace("`", "").replace("Expected", "expected").replace("Invalid", "invalid")
    return f"[{section}] {key}: {message}. It must be {allowed.replace('`', '')}: {meaning}"


def _refuse_contradictions(settings: Settings, source: str) -> None:
    failover, gateway, control, breaker = settings.failover, settings.gateway, settings.control, settings.breaker
    if failover.silence_floor_s > failover.silence_cap_s:
        raise BadSettings(f"{source}: [failover] silence_floor_s must not be above silence_cap_s.")
    if breaker.open_s > breaker.open_max_s:
        raise BadSettings(f"{source}: [breaker] open_s must not be above open_max_s.")
    if settings.probe.silent_s <= 2 * settings.probe.every_s:
        raise BadSettings(
            f"{source}: [probe] silent_s must be more than twice every_s, or one late ping kills a replica."
        )
    if settings.restart.first_delay_s > settings.restart.delay_max_s:
        raise BadSettings(f"{source}: [restart] first_delay_s must not be above delay_max_s.")
    replica = settings.replica
    if said := contradiction(replica.engine, replica.url, replica.devices, settings.engine):
        raise BadSettings(f"{source}: {said}")
    if settings.smaller.path and replica.url:
        raise BadSettings(
            f"{source}: [smaller] path: its replicas have the settings of [replica], and an engine that runs already, named "
            "by its url, serves another model. Leave [smaller] out, or let Holdfast run the engines."
        )
    _refuse_half_papers(source, "gateway", gateway)
    _refuse_half_papers(source, "control", control)
    if gateway.port == control.port:
        raise BadSettings(
            f"{source}: [gateway] port and [control] port are both {gateway.port}: give one another number."
        )


def _refuse_half_papers(source: str, section: str, papers: Gateway | Control) -> None:
    """The TLS files of one door. Raises BadSettings."""
    if bool(papers.tls_cert) != bool(papers.tls_key):
        raise BadSettings(f"{source}: [{section}] tls_cert and tls_key belong together: set both, or neither.")
    if papers.tls_client_ca and not papers.tls_cert:
        raise BadSettings(
            f"{source}: [{section}] tls_client_ca needs tls_cert and tls_key: clients show theirs over TLS."
        )
    for key, path in (
        ("tls_cert", papers.tls_cert),
        ("tls_key", papers.tls_key),
        ("tls_client_ca", papers.tls_client_ca),
    ):
        if path and not path.startswith("/"):
            raise BadSettings(f"{source}: [{section}] {key} must be a whole path, beginning with '/'.")


def reference() -> str:
    """The reference page, in Markdown: one table a section."""
    parts = [PAGE_HEAD]
    for section in structs.fields(Settings):
        kind = struct_of(section.type)
        doc = (kind.__doc__ or "").strip()
        name = section.name if kind is section.type else f"{section.name}.NAME"
        parts.append(f"\n## [{name}]\n\n{doc}\n\n| key | type | default | meaning |\n|---|---|---|---|")
        hints = get_type_hints(kind, include_extras=True)
        for field in structs.fields(kind):
            type_name, sentence = _described(hints[field.name])
            parts.append(f"| `{field.name}` | {type_name} | `{_toml(field.default)}` | {sentence} |")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"


def _described(hint: Any) -> tuple[str, str]:
    """(type with its limits, sentence) of one annotated key."""
    inner, *metas = get_args(hint)
    limits = [
        f"{sign} {value:g}"
        for meta in metas
        for sign, value in (("≥", meta.ge), (">", meta.gt), ("≤", meta.le))
        if value is not None
    ]
    sentence = " ".join(meta.description for meta in metas if meta.description)
    if get_origin(inner) is Literal:
        return " or ".join(f"`{_toml(value)}`" for value in get_args(inner)), sentence
    name = KINDS[inner]
    return f"{name}{' ' if limits else ''}{', '.join(limits)}", sentence


def _toml(value: object) -> str:
    if value is msgspec.NODEFAULT:
        return "{}"  # an empty table is made anew for each
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(one) for one in value)}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else f"{value}"
