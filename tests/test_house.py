"""The house keeps its own rules. Each rule is a plain function in tests/house; here it is run over the tree, and over
snippets that break it, since a checker that can't fail checks nothing. There are no waivers: a rule that is wrong is
changed for everybody."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from house import bans, graph, sizes, streams, texts
from house.source import ROOT, Source, python_sources, repo_files

Rule = Callable[[Source], list[str]]
PATHS = repo_files()
SOURCES = python_sources(PATHS)
PYPROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
RULES: list[Rule] = [
    sizes.long_modules,
    sizes.long_functions,
    sizes.many_parameters,
    sizes.many_methods,
    bans.clock_readers,
    bans.sleeping_tests,
    bans.unseeded,
    bans.mocks,
    bans.wide_catches,
    bans.globals_and_calls,
    bans.remarks,
    bans.hidden_imports,
    streams.unclosed_streams,
    streams.yields_in_scopes,
    graph.impurities,
]
LAYER = "def layer(inner):\n    async def service(g):\n"
CLOSED = (
    "        chunks = inner(g)\n        try:\n            async for c in chunks:\n                yield c\n"
    "        finally:\n            await chunks.aclose()\n"
)
BROKEN: list[tuple[Rule, str, str]] = [
    (sizes.long_modules, "src/holdfast/a.py", "x = 1\n" * 401),
    (sizes.long_functions, "src/holdfast/a.py", "def f():\n" + "    x = 1\n" * 60),
    (sizes.many_parameters, "src/holdfast/a.py", "def f(a, b, c, d, /, e, f, *, g): ...\n"),
    (sizes.many_methods, "src/holdfast/a.py", "class A:\n" + "".join(f"    def m{n}(self): ...\n" for n in range(13))),
    (bans.clock_readers, "src/holdfast/fleet/a.py", "import time\nnow = time.monotonic()\n"),
    (bans.clock_readers, "src/holdfast/fleet/a.py", "from time import perf_counter\n"),
    (bans.clock_readers, "src/holdfast/fleet/a.py", "import datetime\nnow = datetime.datetime.now()\n"),
    (bans.clock_readers, "src/holdfast/fleet/a.py", "import asyncio\nasync def f():\n    await asyncio.sleep(1)\n"),
    (
        bans.clock_readers,
        "src/holdfast/fleet/a.py",
        "import asyncio\ndef f():\n    return asyncio.get_running_loop().time()\n",
    ),
    (bans.clock_readers, "src/holdfast/fleet/a.py", "def f(self):\n    return self._loop.time()\n"),
    (bans.sleeping_tests, "tests/test_a.py", "import time\ntime.sleep(0.1)\n"),
    (bans.sleeping_tests, "tests/test_a.py", "import asyncio\nasync def f():\n    await asyncio.sleep(delay=1)\n"),
    (bans.unseeded, "src/holdfast/a.py", "import random\nx = random.choice([1])\n"),
    (bans.unseeded, "src/holdfast/a.py", "import random\nx = random.Random()\n"),
    (bans.unseeded, "src/holdfast/a.py", "from random import choice\n"),
    (bans.mocks, "tests/test_a.py", "from unittest.mock import MagicMock\n"),
    (bans.mocks, "tests/test_a.py", "import unittest.mock\n"),
    (bans.mocks, "tests/test_a.py", "def test(monkeypatch):\n    monkeypatch.setattr('a.b', 1)\n"),
    (bans.mocks, "tests/test_a.py", "def test(mocker):\n    mocker.patch('a.b')\n"),
    (bans.wide_catches, "src/holdfast/a.py", "try:\n    f()\nexcept Exception:\n    pass\n"),
    (bans.wide_catches, "src/holdfast/a.py", "try:\n    f()\nexcept:\n    pass\n"),
    (bans.wide_catches, "src/holdfast/a.py", "try:\n    f()\nexcept (OSError, BaseException):\n    pass\n"),
    (bans.globals_and_calls, "src/holdfast/a.py", "def f():\n    global x\n    x = 1\n"),
    (bans.globals_and_calls, "src/holdfast/a.py", "import os\nos.system('ls')\n"),
    (bans.globals_and_calls, "src/holdfast/a.py", "import subprocess\nsubprocess.run('ls', shell=True)\n"),
    (bans.remarks, "src/holdfast/a.py", "x = 1  # type: " + "ignore\n"),
    (bans.remarks, "src/holdfast/a.py", "x = 1  # no" + "qa: E501\n"),
    (bans.remarks, "src/holdfast/a.py", "# TO" + "DO later\n"),
    (bans.hidden_imports, "src/holdfast/a.py", "def f():\n    from holdfast.domain import event\n"),
    (bans.hidden_imports, "src/holdfast/a.py", "async def f():\n    if True:\n        import holdfast.domain\n"),
    (bans.hidden_imports, "src/holdfast/gateway/a.py", "def f():\n    from . import stack\n"),
    (
        streams.unclosed_streams,
        "src/holdfast/gateway/a.py",
        LAYER + "        async for c in inner(g):\n            yield c\n",
    ),
    (streams.unclosed_streams, "src/holdfast/gateway/a.py", LAYER + "        chunks = aclosing(inner(g))\n"),
    (
        streams.unclosed_streams,
        "src/holdfast/gateway/a.py",
        LAYER + CLOSED.replace("chunks.aclose()", "others.aclose()"),
    ),
    (streams.unclosed_streams, "src/holdfast/gateway/a.py", LAYER + CLOSED.replace("try:", "f()\n        try:")),
    (streams.unclosed_streams, "src/holdfast/gateway/a.py", LAYER + "        chunks = inner(g)\n"),
    (streams.unclosed_streams, "src/holdfast/gateway/a.py", "def f(engine, g):\n    return engine.generate(g)\n"),
    (
        streams.yields_in_scopes,
        "src/holdfast/gateway/a.py",
        "async def f():\n    async with asyncio.timeout(1):\n        yield 1\n",
    ),
    (
        streams.yields_in_scopes,
        "src/holdfast/gateway/a.py",
        "async def f():\n    async with TaskGroup() as t:\n        yield 1\n",
    ),
    (graph.impurities, "src/holdfast/policy/a.py", "import asyncio\n"),
    (graph.impurities, "src/holdfast/policy/a.py", "from time import monotonic\n"),
    (graph.impurities, "src/holdfast/domain/a.py", "from holdfast.gateway import stack\n"),
    (graph.impurities, "src/holdfast/policy/a.py", "def f():\n    return open('x')\n"),
    (graph.impurities, "src/holdfast/policy/a.py", "async def f(): ...\n"),
]
SOUND: list[tuple[Rule, str, str]] = [
    (streams.unclosed_streams, "src/holdfast/gateway/a.py", LAYER + CLOSED),
    (sizes.long_functions, "src/holdfast/a.py", "def f():\n    def g():\n" + "        x = 1\n" * 58 + "    return g\n"),
    (sizes.many_parameters, "src/holdfast/a.py", "class A:\n    def f(self, a, b, c, d, e, f): ...\n"),
    (bans.clock_readers, "src/holdfast/host/clock.py", "import time\nnow = time.monotonic()\n"),
    (bans.clock_readers, "src/holdfast/fleet/a.py", "def f(clock):\n    return clock.now(), clock.sleep(1)\n"),
    (bans.sleeping_tests, "tests/test_a.py", "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n"),
    (bans.unseeded, "src/holdfast/a.py", "import random\nx = random.Random(7).random()\n"),
    (bans.mocks, "tests/test_a.py", "def test(monkeypatch):\n    monkeypatch.setenv('A', 'b')\n"),
    (bans.wide_catches, "src/holdfast/a.py", "try:\n    f()\nexcept OSError:\n    pass\n"),
    (bans.remarks, "src/holdfast/a.py", "x = '# type: " + "ignore'\n"),
    (bans.hidden_imports, "src/holdfast/a.py", "def f():\n    import torch\n"),
    (
        streams.unclosed_streams,
        "src/holdfast/gateway/a.py",
        LAYER
        + "        async with aclosing(inner(g)) as cs:\n            async for c in cs:\n                yield c\n",
    ),
    (
        streams.unclosed_streams,
        "src/holdfast/gateway/a.py",
        "def layer(inner):\n    def service(g):\n        check(g)\n        return inner(g)\n    return service\n",
    ),
    (
        streams.yields_in_scopes,
        "src/holdfast/gateway/a.py",
        "async def f(cs):\n    async with asyncio.timeout(1):\n        c = await anext(cs)\n    yield c\n",
    ),
    (
        graph.impurities,
        "src/holdfast/policy/a.py",
        "import math\nfrom msgspec import Struct\nfrom holdfast.domain.event import Event\n",
    ),
]


def told(rule: Rule) -> str:
    return rule.__name__


@pytest.mark.parametrize("rule", RULES, ids=told)
def test_the_tree_keeps_the_rule(rule: Rule) -> None:
    found = [sentence for source in SOURCES for sentence in rule(source)]
    assert found == [], "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("rule", "path", "text"), BROKEN, ids=[f"{told(rule)}-{n}" for n, (rule, *_) in enumerate(BROKEN)]
)
def test_the_rule_finds_what_breaks_it(rule: Rule, path: str, text: str) -> None:
    found = rule(Source(path, text))
    assert found
    assert all(sentence.startswith(f"{path}:") and sentence.count(": ") >= 1 for sentence in found)


@pytest.mark.parametrize(
    ("rule", "path", "text"), SOUND, ids=[f"{told(rule)}-{n}" for n, (rule, *_) in enumerate(SOUND)]
)
def test_the_rule_lets_sound_code_pass(rule: Rule, path: str, text: str) -> None:
    assert rule(Source(path, text)) == []


def test_every_rule_has_a_snippet_that_breaks_it() -> None:
    assert {told(rule) for rule in RULES} == {told(rule) for rule, *_ in BROKEN}


def test_files_are_named_after_their_noun() -> None:
    assert [sentence for path in PATHS for sentence in bans.file_name(path)] == []
    assert bans.file_name("src/holdfast/gateway/utils.py")


def test_code_lies_one_folder_deep() -> None:
    assert [source.path for source in SOURCES if source.in_src and source.path.count("/") > 3] == []


def test_nobody_imports_in_circles() -> None:
    assert graph.cycles(graph.edges(SOURCES)) == []


def test_the_checker_sees_a_circle() -> None:
    ring = [
        Source("src/holdfast/gateway/a.py", "from holdfast.gateway import b\n"),
        Source("src/holdfast/gateway/b.py", "from holdfast.gateway.c import x\n"),
        Source("src/holdfast/gateway/c.py", "import holdfast.gateway.a\n"),
        Source("src/holdfast/gateway/d.py", "from holdfast.gateway import a\n"),
    ]
    assert graph.cycles(graph.edges(ring)) == [["holdfast.gateway.a", "holdfast.gateway.b", "holdfast.gateway.c"]]


def test_no_module_is_dead() -> None:
    packages = {source.module for source in SOURCES if source.path.endswith("__init__.py")}
    assert graph.dead(graph.edges(SOURCES), packages) == []


def test_the_checker_sees_a_dead_module() -> None:
    sources = [
        Source("src/holdfast/cli/up.py", "from holdfast.policy import used\nDOOR = 'holdfast.policy.door:open'\n"),
        Source("src/holdfast/policy/door.py", ""),
        Source("src/holdfast/sim/stage.py", ""),
        Source("tests/test_a.py", "from holdfast.sim import stage\nfrom holdfast.policy import forgotten\n"),
        Source("src/holdfast/policy/used.py", ""),
        Source("src/holdfast/policy/forgotten.py", ""),
    ]
    assert graph.dead(graph.edges(sources), set()) == ["holdfast.policy.forgotten"]


def test_every_policy_has_its_test() -> None:
    policies = {source.path.rsplit("/", 1)[-1] for source in SOURCES if source.room == "policy"} - {"__init__.py"}
    assert [name for name in sorted(policies) if f"tests/policy/test_{name}" not in PATHS] == []


def test_no_two_test_modules_share_a_name() -> None:
    """They are no packages, so pytest could collect only one of them."""
    names = [Path(path).name for path in PATHS if Path(path).name.startswith("test_")]
    assert sorted(names) == sorted(set(names))


def test_third_party_imports_are_declared() -> None:
    beside = {part.removesuffix(".py") for path in PATHS if not path.startswith("src/") for part in path.split("/")}
    assert [sentence for source in SOURCES for sentence in graph.undeclared(source, PYPROJECT, beside)] == []
    assert graph.undeclared(Source("src/holdfast/a.py", "import requests\n"), PYPROJECT, beside)
    assert not graph.undeclared(
        Source("src/holdfast/a.py", "import grpc_health.v1, json, holdfast.app\n"), PYPROJECT, beside
    )


def test_no_file_speaks_of_the_place_where_it_was_written() -> None:
    found = []
    for path in PATHS:
        if not path.endswith(texts.BINARY):
            found += texts.placed(path, (ROOT / path).read_text("utf-8", "replace"))
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "see /" + "work/main/x",
        "pip install --index" + "-url https://x",
        "http://mirror." + "internal/simple",
        "/" + "home/eve/x",
    ],
)
def test_the_checker_sees_the_place(line: str) -> None:
    assert texts.placed("a.md", line)


def lint_imports(folder: os.PathLike[str] | str, config: str) -> subprocess.CompletedProcess[str]:
    """The floors as import-linter reads them, in a process of its own."""
    program = (
        "import sys; from importlinter.cli import lint_imports as lint; sys.exit(lint(sys.argv[1], no_cache=True))"
    )
    command = [sys.executable, "-c", program, config]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_floors_hold() -> None:
    outcome = lint_imports(ROOT, "pyproject.toml")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def floors() -> dict[str, bool]:
    """Every room that the contract names, and whether it must exist."""
    contracts = tomllib.loads(PYPROJECT)["tool"]["importlinter"]["contracts"]
    layers = next(contract for contract in contracts if contract["id"] == "floors")["layers"]
    words = [word.strip() for layer in layers for word in layer.split("|")]
    return {word.strip("()"): not word.startswith("(") for word in words}


@pytest.mark.parametrize(
    ("room", "wrong"),
    [
        ("policy", "gateway"),
        ("gateway", "fleet"),
        ("gateway", "host"),
        ("domain", "policy"),
        ("engine", "pearl"),
        ("app", "cli"),
    ],
)
def test_a_broken_floor_is_seen(room: str, wrong: str, tmp_path: Path) -> None:
    """The same contracts over a house of empty rooms, one of which looks where it should not."""
    for name in (name for name, needed in floors().items() if needed):
        (tmp_path / "holdfast" / name).mkdir(parents=True)
        (tmp_path / "holdfast" / name / "__init__.py").write_text("")
    (tmp_path / "holdfast/__init__.py").write_text("")
    (tmp_path / "holdfast" / room / "curious.py").write_text(f"import holdfast.{wrong}\n")
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    outcome = lint_imports(tmp_path, "pyproject.toml")
    assert outcome.returncode != 0
    assert f"holdfast.{room}.curious -> holdfast.{wrong}" in outcome.stdout


def test_the_contract_names_every_room() -> None:
    standing = {source.path.split("/")[2].removesuffix(".py") for source in SOURCES if source.in_src}
    assert standing - set(floors()) - {"__init__", "__main__"} == set()
