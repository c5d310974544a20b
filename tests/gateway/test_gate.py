"""The gate at a real door: who is refused before its body is read, and what is told to whom; and the tenants' keys."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from doorway import HandClock, Says, chat_body, doorway, run

from holdfast.domain.fault import Overloaded, Unauthorised
from holdfast.domain.limits import LIMITS
from holdfast.domain.request import Generation
from holdfast.domain.settings import BadSettings, Settings
from holdfast.domain.settings_text import read
from holdfast.domain.tenant import Limits
from holdfast.gateway.admit import admit
from holdfast.gateway.asker import Asker
from holdfast.gateway.gate import Gate
from holdfast.gateway.gate_metrics import GateCollector
from holdfast.gateway.gate_view import view_of
from holdfast.gateway.tenants import Tenants, tenants_of
from holdfast.policy.admission import Admission
from holdfast.policy.quota import Quota
from holdfast.policy.room import Room
from holdfast.policy.token_bucket import OwnLedger


class NoLines:
    def on_change(self, listener: Any) -> None:
        listener()


def _gate(slots: int = 2, tenants: Tenants | None = None, **rules: Any) -> Gate:
    room = Room()
    room.see("boot", slots, 0)
    return Gate(Admission(**rules), room, HandClock(), tenants or Tenants(), Quota(OwnLedger()))


def _over(gate: Gate, says: Says) -> Any:
    lines: Any = NoLines()
    return doorway(admit(gate, lines)(says), glance=gate.glance, clock=gate.clock)


def test_who_asks_goes_with_the_request() -> None:
    async def story() -> None:
        says = Says()
        gate = _gate(tenants=Tenants([Limits(tenant="acme", priority=3)], {"k": "acme"}))
        async with _over(gate, says) as place, place.client() as client:
            assert (await client.ask(chat_body(), authorization="Bearer k", x_holdfast_priority="1")).status == 200
            assert (await client.ask(chat_body(), authorization="Bearer k", x_holdfast_priority="9")).status == 200
            assert (await client.ask(chat_body(), authorization="Bearer k")).status == 200
            assert (await client.ask(chat_body(), authorization="Bearer no")).status == 401
            wrong = await client.ask(chat_body(), authorization="Bearer k", x_holdfast_priority="high")
            assert (wrong.status, wrong.error["param"]) == (400, "x-holdfast-priority")
        assert [(one.tenant, one.priority, one.client) for one in says.asked] == [
            ("acme", 1, "k"), ("acme", 3, "k"), ("acme", 3, "k"),
        ]  # fmt: skip
        assert all(one.body_bytes > 20 for one in says.asked)
        assert gate.running == 0

    run(story())


def test_with_a_full_queue_a_body_is_not_even_parsed() -> None:
    async def story() -> None:
        says = Says(hold=True)
        gate = _gate(slots=1, queue_max=1)
        async with _over(gate, says) as place, place.client() as one, place.client() as two, place.client() as three:
            first = asyncio.ensure_future(one.ask(chat_body(stream=True)))
            await says.begun.wait()
            second = asyncio.ensure_future(two.ask(chat_body(stream=True)))
            await two.writer.drain()
            for _ in range(1000):
                if gate.queue.requests:
                    break
                await asyncio.sleep(0)
            refused = await three.ask(b"this is no JSON")
            assert refused.status == 503
            assert refused.error["limit"]["name"] == "queue_requests"
            assert refused.error["message"].endswith("and 1 requests wait, the queue's limit is 1")
            assert int(refused.headers["retry-after"]) >= 1
            says.go.set()
            assert [(await answer).status for answer in (first, second)] == [200, 200]
        assert view_of(gate, 0.0).refused == {"queue_requests": 1}

    run(story())


def test_every_limit_is_in_the_document() -> None:
    text = (Path(__file__).parents[2] / "docs/limits.md").read_text("utf-8")
    asked_here = [one.name for one in LIMITS if one.name not in ("capacity", "connections")]
    assert [name for name in asked_here if f"| `{name}` |" not in text] == []


def test_the_figures_tell_who_waits_and_who_was_refused() -> None:
    async def story() -> None:
        gate = _gate(slots=1, queue_max=0)
        place = gate.enter(_asked(gate, "one"))
        with pytest.raises(Overloaded):
            gate.enter(_asked(gate, "two"))
        samples = {
            (sample.name, *sample.labels.values()): sample.value
            for family in GateCollector(gate).collect()
            for sample in family.samples
        }
        assert samples["holdfast_refused_total", "queue_requests", "default"] == 1
        assert samples["holdfast_tenant_running", "default"] == 1
        assert samples["holdfast_slots",] == 1
        assert samples["holdfast_queue_wait_seconds_count",] == 1
        gate.leave(place)

    run(story())


def _asked(gate: Gate, name: str) -> Any:
    return Generation(id=name, prompt_ids=[1, 2, 3], max_tokens=5)


def test_a_key_means_its_tenant_and_no_key_the_default_one() -> None:
    text = '[tenants.acme]\nkeys = ["a1", "a2"]\nweight = 2.0\n[tenants.default]\nconcurrency = 3\n'
    tenants = tenants_of(read(text))
    assert {tenants.of_key(key).tenant for key in ("a1", "a2")} == {"acme"}
    assert (tenants.of_key("").tenant, tenants.of_key("").concurrency) == ("default", 3)
    with pytest.raises(Unauthorised, match="the API key is not known here"):
        tenants.of_key("a3")
    assert tenants.named("acme").weight == 2.0
    assert tenants.named("nobody").tenant == "default"


def test_a_gateway_key_locks_the_door() -> None:
    tenants = tenants_of(read('[gateway]\nkey = "front"\n'))
    assert tenants.of_key("front").tenant == "default"
    with pytest.raises(Unauthorised, match="no API key was sent"):
        tenants.of_key("")


def test_without_any_key_nobody_is_asked() -> None:
    tenants = tenants_of(Settings())
    assert not tenants.asked
    assert tenants.of_key("whatever").tenant == "default"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[tenants.a]\nkeys = ["k"]\n[tenants.b]\nkeys = ["k"]\n', "one of them is also a key of"),
        ('[gateway]\nkey = "k"\n[tenants.a]\nkeys = ["k"]\n', "is also a key of"),
        ('[tenants.a]\nkeys = [""]\n', "an empty key is none"),
        ("[tenants.a]\nmemory_min = 0.6\n[tenants.b]\nmemory_min = 0.6\n", "promise at most 1"),
    ],
)
def test_tenants_that_contradict_each_other_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(BadSettings, match=sentence):
        tenants_of(read(text))


def test_the_glance_tells_who_is_counted_when_it_hammers() -> None:
    gate = _gate(tenants=Tenants(keys={"k": "default"}, keyless=True))
    keyed, keyless = Asker("k"), Asker("")
    gate.glance(keyed, "10.0.0.1")
    gate.glance(keyless, "10.0.0.1")
    assert (keyed.client, keyless.client) == ("k", "10.0.0.1")
