"""The load of a site: views added up, and the word that somebody on call reads first."""

import ast
from io import StringIO
from pathlib import Path

import pytest
from msgspec import structs
from rich.console import Console

import holdfast
from holdfast.cli.limits import page_of
from holdfast.cli.top_screen import bar, screen
from holdfast.domain.board import ReplicaView, TenantView, WorkerView, short_name
from holdfast.domain.key import KeyEntry, Scope
from holdfast.domain.limits import BY_NAME, LIMITS, is_ours
from holdfast.domain.replica import Load, ReplicaState
from holdfast.domain.settings import BadSettings
from holdfast.domain.settings_text import read
from holdfast.domain.site import ProcessView, Role, SiteView
from holdfast.fleet.load import SiteLoad, amount, site_load

SRC = Path(holdfast.__file__).parent
NOW = 100.0


def replica(number: int, **more: object) -> ReplicaView:
    return ReplicaView(
        **{
            "replica": f"replica-{number}",
            "boot": f"b{number}",
            "slots": 4,
            "state": "serving",
            "tokens_max": 100,
            **more,
        }
    )


def view(number: int = 0, **more: object) -> WorkerView:
    return WorkerView(**{"worker": f"gateway-{number}.0123abcd", "at": NOW, "replicas": (replica(0),), **more})


def loaded(*views: WorkerView, site: SiteView | None = None) -> SiteLoad:
    return site_load("tested", views, site, NOW + 0.05, 1_764_000_000.0)


def site(*processes: ProcessView) -> SiteView:
    return SiteView(
        name="tested",
        at=0,
        supervisor_pid=1,
        address="",
        model="pearl",
        processes=processes,
        replicas=2,
        replicas_why="w",
    )


def process(name: str, state: ReplicaState, why: str = "", role: Role = Role.REPLICA) -> ProcessView:
    return ProcessView(name=name, role=role, state=state, why=why)


def test_workers_add_up_and_what_they_share_is_counted_once() -> None:
    one = view(
        0,
        running=3,
        waiting=2,
        wait_s=0.1,
        requests_per_s=10.0,
        refused={"queue_wait": 4},
        bucket_level=90.0,
        bucket_size=100.0,
        sharing="workers: 2",
        tenants=(TenantView(tenant="acme", running=3, served_per_s=30.0, quota_used=50.0, quota_size=80.0),),
        replicas=(replica(0, running=3, held_tokens=10), replica(1)),
    )
    other = view(
        1,
        running=1,
        wait_s=0.3,
        requests_per_s=5.0,
        refused={"queue_wait": 1, "tenant_rate": 9},
        bucket_level=80.0,
        bucket_size=100.0,
        sharing="workers: 2",
        tenants=(
            TenantView(tenant="acme", running=1, served_per_s=30.0, quota_used=60.0, quota_size=80.0),
            TenantView(tenant="b", served_per_s=20.0, waiting=5),
        ),
        replicas=(replica(0, running=1, held_tokens=7), replica(1)),
    )
    load = loaded(one, other)
    assert (load.running, load.waiting, load.wait_s, load.requests_per_s) == (4, 2, 0.3, 15.0)
    assert list(load.refused.items()) == [("tenant_rate", 9), ("queue_wait", 5)]
    assert (load.bucket_level, load.bucket_size) == (80.0, 100.0)  # the same bucket, read at two moments
    assert (load.slots, load.tokens_max, load.held_tokens) == (8, 200, 17)
    assert [(one.replica, one.running, one.slots) for one in load.replicas] == [
        ("replica-0", 4, 4),
        ("replica-1", 0, 4),
    ]
    assert [(one.tenant, one.running, one.share, one.quota_used) for one in load.tenants] == [
        ("acme", 4, 0.75, 60.0),
        ("b", 0, 0.25, 0.0),
    ]
    assert [one.worker for one in load.workers] == ["gateway-0", "gateway-1"]


@pytest.mark.parametrize(
    ("change", "word", "why"),
    [
        ({}, "ok", ()),
        ({"waiting": 3, "waiting_tokens": 900}, "queueing", ("3 wait with 900 tokens of work",)),
        (
            {"waiting": 3, "waiting_tokens": 2900, "wait_s": 0.25},
            "queueing",
            ("3 wait with 2.9k tokens of work, who is let in has waited 0.25 s",),
        ),
        (
            {"refused_per_s": {"tenant_rate": 7.0}},
            "ok",
            ("callers over limits of their own: 7/s (tenant_rate 7)",),
        ),
        (
            {"refused_per_s": {"queue_wait": 12.0, "deadline": 1.5, "tenant_rate": 7.0}, "waiting": 1},
            "refusing",
            (
                "we refuse 14/s (queue_wait 12, deadline 1.5)",
                "1 wait with 0 tokens of work",
                "callers over limits of their own: 7/s (tenant_rate 7)",
            ),
        ),
        ({"failed_per_s": 0.5}, "failing", ("0.5 answers a second end in an error of ours",)),
        (
            {"rung": 1, "rung_why": "too many errors", "failed_per_s": 2.0},
            "degraded",
            ("rung 1 of 5, shorter answers: too many errors", "2 answers a second end in an error of ours"),
        ),
        ({"replicas": ()}, "down", ("no replica serves",)),
        ({"at": NOW - 10}, "down", ("no gateway worker tells anything", "gateway-0: frozen, or busy for seconds")),
    ],
)
def test_the_verdict_leads_with_the_worst(change: dict[str, object], word: str, why: tuple[str, ...]) -> None:
    verdict = loaded(view(**change)).verdict
    assert (verdict.word, verdict.why) == (word, why)


def test_a_frozen_worker_is_named_and_its_figures_do_not_count() -> None:
    frozen = view(1, at=NOW - 3, waiting=7, replicas=(replica(0, running=2, state="suspect: silent"),))
    load = loaded(view(0, waiting=5, replicas=(replica(0, running=1),)), frozen)
    assert load.waiting == 5
    assert [(one.running, one.state) for one in load.replicas] == [(3, "serving")]  # what it holds, it holds still
    assert load.silent == ("gateway-1",)
    assert "gateway-1: frozen, or busy for seconds" in load.verdict.why


def test_replicas_are_told_as_the_worse_of_supervisor_and_workers_sees_them() -> None:
    kept = site(
        process("replica-0", ReplicaState.SERVING),
        process("replica-1", ReplicaState.SERVING),
        process("replica-2", ReplicaState.WARM),
        process("replica-10", ReplicaState.DOWN, "drained"),
        process("gateway-0", ReplicaState.SERVING, role=Role.GATEWAY),
    )
    broken = "breaker open: died 5 times in a row"
    views = [
        view(number, replicas=(replica(0, state=broken), replica(1, state=broken if number else "serving")))
        for number in range(2)
    ]
    load = loaded(*views, site=kept)
    assert [(one.replica, one.state, one.why) for one in load.replicas] == [
        ("replica-0", "breaker open", "died 5 times in a row"),
        ("replica-1", "serving", f"gateway-1: {broken}"),
        ("replica-2", "warm", ""),
        ("replica-10", "down", "drained"),
    ]
    assert load.slots == 4
    assert load.verdict.why == ("not in service: replica-0 breaker open, replica-10 down",)
    assert (load.wanted, load.wanted_why) == (2, "w")


def test_a_smaller_models_replica_is_shown_by_its_own_word_and_is_no_room_of_the_site() -> None:
    load = Load(running=2, slots=8, cache_tokens=30, cache_tokens_max=90)
    one = structs.replace(process("smaller-0", ReplicaState.SERVING), load=load, model="pearl-mini")
    found = loaded(view(), site=site(process("replica-0", ReplicaState.SERVING), one))
    assert found.slots == 4
    shown = found.replicas[1]
    assert (shown.model, shown.running, shown.slots, shown.held_tokens, shown.tokens_max) == (
        "pearl-mini",
        2,
        8,
        30,
        90,
    )


def test_each_replica_is_told_with_its_engine() -> None:
    vllm = structs.replace(
        process("replica-0", ReplicaState.SERVING), engine="vllm 0.32.0: ids in, ids out; no priority"
    )
    own = structs.replace(process("replica-1", ReplicaState.SERVING), engine="embedded")
    starting = process("replica-2", ReplicaState.STARTING)
    load = loaded(view(), site=site(vllm, own, starting))
    assert [one.engine for one in load.replicas] == ["vllm 0.32.0", "embedded", ""]
    for width in (80, 160):
        told = shown(load, width)
        assert "replica-0  serving   vllm 0.32.0  " in told
        assert "replica-1  serving   embedded     " in told
        assert "replica-2  starting  -            " in told
    assert "vllm" not in shown(load, 60), "a narrow terminal loses columns"
    assert "engine" not in shown(loaded(view(), site=site(own)), 80), "where all are our own"


def shown(load: SiteLoad, width: int) -> str:
    console = Console(width=width, record=True, file=StringIO(), highlight=False)
    console.print(screen(load, "the control plane", width))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    return text


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0"), (0.04, "0"), (0.44, "0.4"), (9.96, "10"), (312.4, "312"), (999.6, "1k"), (8149, "8.1k"), (4e6, "4M")],
)
def test_amounts_are_short(number: float, said: str) -> None:
    assert amount(number) == said


def test_a_workers_life_is_left_out_of_its_name() -> None:
    assert [
        short_name(name) for name in ("gateway-0.0123abcd", "gateway-0.1.0123abcd", "gateway-0.1", "gateway-0")
    ] == [
        "gateway-0",
        "gateway-0.1",
        "gateway-0.1",
        "gateway-0",
    ]


def crowded() -> SiteLoad:
    tenants = tuple(
        TenantView(
            tenant=f"a-tenant-with-a-long-name-{n:02}", waiting=n, served_per_s=n, quota_size=10, quota_used=n % 9
        )
        for n in range(40)
    )
    return loaded(
        view(
            waiting=780,
            rung=2,
            rung_why="reasoning is cut to a length: requests wait 1.22 s for a place, the limit is 1.00 s",
            refused={one.name: 1000 for one in LIMITS},
            refused_per_s={"queue_wait": 312.0, "tenant_rate": 88.0},
            failed_per_s=3.0,
            tenants=tenants,
            replicas=tuple(replica(n, running=n % 5, state="serving" if n else "suspect: silent") for n in range(4)),
            bucket_size=2000.0,
            bucket_level=100.0,
            sharing="workers: 2 on this machine",
        )
    )


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_the_screen_fits_its_terminal(width: int) -> None:
    console = Console(width=width, record=True, file=StringIO(), highlight=False)
    console.print(screen(crowded(), "the control plane", width, 45))
    lines = console.export_text().splitlines()
    assert max(len(line) for line in lines) <= width
    assert lines[0].startswith(" DEGRADED  tested 3 replicas serve")
    assert lines[1].startswith("  rung 2 of 5, less thinking")
    text = "\n".join(lines)
    assert "replica-0  suspect" in text
    assert {60: "a-tenan…", 80: "a-tenant-with-a-l…"}.get(width, "a-tenant-with-a-long-na…") in text
    assert "more" in text  # not all tenants fit
    if width >= 80:
        assert len(lines) <= 45
        assert "asked 0/s  let in 0/s  refused 400/s" in text


def test_a_bar_shows_little_and_much() -> None:
    assert [bar(used, 100, 5).plain for used in (0, 1, 50, 100, 200)] == ["░░░░░", "█░░░░", "██░░░", "█████", "█████"]
    assert bar(1, 0, 3).plain == "░░░"


def test_every_limit_that_refuses_is_in_the_table() -> None:
    named = set()
    for path in SRC.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Limit" and node.args:
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    named.add(first.value)
    assert len(named) >= 5
    assert named - set(BY_NAME) == set()
    assert is_ours("something new")


def test_the_settings_that_the_table_names_exist() -> None:
    settings = read("")
    for one in LIMITS:
        section, _, key = one.setting.partition(".")
        kind = getattr(settings, section) if section != "tenants" else next(iter(read("[tenants.a]").tenants.values()))
        assert key in structs.asdict(kind), one.setting


TENANTS = """
[replica]
count = 2
slots = 10
[tenants.acme]
keys = ["ka", "kb"]
requests_per_s = 5
tokens_per_min = 60000
memory_min = 0.3
[tenants.batch]
keys = ["kc"]
priority = -1
weight = 0.5
memory_max = 0.5
"""


def test_limits_tells_what_applies_to_whom() -> None:
    page = page_of(read(TENANTS))
    assert [(one.tenant, one.keys, one.slots_min, one.slots_max, one.refused_from_rung) for one in page.tenants] == [
        ("default", 0, 0.0, 20.0, 5),
        ("acme", 2, 6.0, 20.0, 0),
        ("batch", 1, 0.0, 10.0, 3),
    ]
    assert sum(one.share for one in page.tenants) == pytest.approx(1.0, abs=0.001)
    assert {one.limit: one.value for one in page.limits}["tenant_rate"] == "of 1 tenant"
    own = {one.limit: one.value for one in page_of(read(TENANTS), "acme").limits}
    assert (own["tenant_rate"], own["tenant_quota"], own["tenant_memory"]) == ("5", "60,000", "none")
    assert (own["site_rate"], own["degraded"]) == ("2,000", "true")
    with pytest.raises(BadSettings, match=r"there is no tenant 'acm'\. Tenants: default, acme, batch\."):
        page_of(read(TENANTS), "acm")


def test_limits_knows_tenants_that_only_have_a_key() -> None:
    key = KeyEntry(id="4fQ2kX9bLm", name="alice", tenant="new", scopes=(Scope.CHAT,), digest=b"", made_unix_s=1.0)
    (new,) = page_of(read(TENANTS), "new", [key]).tenants
    assert (new.tenant, new.keys, new.slots_max, new.refused_from_rung) == ("new", 1, 20.0, 5)
    assert [one.tenant for one in page_of(read(TENANTS), live=[key]).tenants] == ["default", "acme", "batch", "new"]
