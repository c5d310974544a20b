"""The documents tell the truth: verbs, settings, events and links are those of the code."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from holdfast.cli.main import VERBS
from holdfast.domain import event
from holdfast.domain.event import Event
from holdfast.domain.settings import Settings
from holdfast.domain.settings_text import struct_of
from house.source import ROOT, repo_files

PAGES = [path for path in repo_files() if path.endswith(".md")]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
VERB = re.compile(r"`(?:\.venv/bin/)?holdfast ([a-z]+)|^ {4}(?:\.venv/bin/)?holdfast ([a-z]+)", re.MULTILINE)
TARGET = re.compile(r"`make ([a-z]+)`|^ {4}make ([a-z]+)", re.MULTILINE)
KEY = re.compile(r"`\[(\w+)\] (\w+)")
SCRIPT = re.compile(r"python ((?:bench|training)/\w+\.py)")


def text(path: str) -> str:
    return (ROOT / path).read_text("utf-8")


def mentioned(pattern: re.Pattern[str], pages: list[str]) -> dict[str, str]:
    """What the pages mention, and where first."""
    found: dict[str, str] = {}
    for page in pages:
        for groups in pattern.findall(text(page)):
            found.setdefault(next(one for one in (groups if isinstance(groups, tuple) else (groups,)) if one), page)
    return found


def kinds(kind: type[Event] = Event) -> Iterator[type[Event]]:
    for one in kind.__subclasses__():
        yield one
        yield from kinds(one)


def rows(page: str) -> dict[str, list[str]]:
    """First cell without backticks -> all cells, of every table row."""
    found = {}
    for line in text(page).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if line.startswith("| `") else []
        if cells:
            found[cells[0].strip("| ").strip("`")] = cells
    return found


def test_every_verb_is_in_the_readme_and_every_verb_there_exists() -> None:
    told = mentioned(VERB, ["README.md"])
    assert set(told) == set(VERBS)


def test_no_page_speaks_of_a_verb_that_does_not_exist() -> None:
    assert {verb: page for verb, page in mentioned(VERB, PAGES).items() if verb not in VERBS} == {}


def test_every_verb_can_be_imported_and_described() -> None:
    assert all((ROOT / "src" / (module.replace(".", "/") + ".py")).is_file() for module, _ in VERBS.values())


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", text("Makefile"), re.MULTILINE))
    told = mentioned(TARGET, PAGES)
    assert {"demo", "up", "test", "check"} <= set(told)
    assert {target: page for target, page in told.items() if target not in targets} == {}


def test_every_event_is_documented_with_its_fields() -> None:
    told = rows("docs/events.md")
    shared = {field.name for field in structs.fields(Event)}
    wanted = {}
    for kind in kinds():
        tag = kind.__struct_config__.tag
        wanted[tag] = {field.name for field in structs.fields(kind)} - shared
    assert set(told) == set(wanted)
    for tag, fields in wanted.items():
        assert set(re.findall(r"`(\w+)`", told[tag][2])) == fields, tag


def test_the_event_module_holds_every_event() -> None:
    assert all(kind.__module__ == event.__name__ for kind in kinds())


@pytest.mark.parametrize("section", structs.fields(Settings), ids=lambda field: field.name)
def test_every_setting_is_documented(section: structs.FieldInfo) -> None:
    name = section.name if struct_of(section.type) is section.type else f"{section.name}.NAME"
    page = text("docs/settings.md").partition(f"## [{name}]")[2].partition("\n## ")[0]
    assert page
    missing = [field.name for field in structs.fields(struct_of(section.type)) if f"| `{field.name}` |" not in page]
    assert missing == []


def test_settings_that_pages_mention_exist() -> None:
    known = {
        (section.name, field.name)
        for section in structs.fields(Settings)
        for field in structs.fields(struct_of(section.type))
    }
    told = {(section, key): page for page in PAGES for section, key in KEY.findall(text(page))}
    assert told
    assert {pair: page for pair, page in told.items() if pair not in known} == {}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    folder = Path(page).parent
    targets = [target.partition("#")[0] for target in LINK.findall(text(page)) if "://" not in target]
    assert [target for target in targets if target and not (ROOT / folder / target).exists()] == []


def test_scripts_that_pages_run_exist() -> None:
    told = mentioned(SCRIPT, PAGES)
    assert {script: page for script, page in told.items() if not (ROOT / script).is_file()} == {}


def test_modules_that_the_architecture_names_exist() -> None:
    """`gateway/failover.py` is a path in src/holdfast; a bare `pick.py` stands in the room named before it."""
    page, room, missing = text("ARCHITECTURE.md").partition("## One request")[2].partition("## Words")[0], "", []
    for name in re.findall(r"`((?:\w+/)?\w+\.py)`", page):
        room, file = name.split("/") if "/" in name else (room, name)
        if not any((ROOT / "src/holdfast" / place / file).is_file() for place in (room, "gateway")):
            missing.append(f"{room}/{file}")
    assert missing == []


def test_decisions_are_numbered_without_gaps_and_say_problem_choice_price() -> None:
    pages = sorted(path for path in PAGES if re.match(r"decisions/\d{4}-", path))
    assert [int(Path(page).name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        assert [word for word in ("**Problem.**", "**Choice.**", "**Price.**") if word not in text(page)] == [], page
