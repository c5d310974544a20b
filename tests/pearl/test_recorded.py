"""The shipped model's canary: what was recorded is what the engine answers, and what would be recorded again."""

from pathlib import Path

import msgspec
import pytest

from holdfast.cli.validate import canary, damage, prompt_ids
from holdfast.dialect.open import open_dialect
from holdfast.pearl.open import CoreOptions, open_core
from holdfast.policy.canary import MARGIN_NATS
from holdfast.policy.validation import Case
from holdfast.store.answers import Recorded, record, recorded

SHIPPED = Path(__file__).parents[2] / "src" / "holdfast" / "shipped" / "pearl"
pytestmark = pytest.mark.skipif(
    not (SHIPPED / "model.safetensors").exists(), reason="the shipped model is not in this checkout"
)


def test_what_was_recorded_is_what_the_model_answers(tmp_path: Path) -> None:
    known = recorded(SHIPPED, "embedded", "fp32")
    assert known is not None
    dialect = open_dialect(SHIPPED)
    cases = [msgspec.json.decode(line, type=Case) for line in (SHIPPED / "gate.jsonl").read_bytes().splitlines()]
    asked = [case for case in cases if tuple(prompt_ids(case, dialect)) == known.prompt_ids]
    assert asked, "the canary is a case of the gate"
    found = canary(open_core(SHIPPED, CoreOptions()), dialect, asked, "fp32")
    assert (found.prompt_ids, found.ids) == (known.prompt_ids, known.ids)
    assert found.margin_nats > MARGIN_NATS
    assert (record(tmp_path, found)).name == "canary.json"
    assert recorded(tmp_path, "embedded", "fp32") is not None


def test_the_manifest_learns_of_it(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"files": {}, "made": "here"}')
    record(tmp_path, Recorded(engine="embedded", dtype="fp32", prompt_ids=(1,), ids=(2,), margin_nats=3.0))
    assert damage(tmp_path) == ""
    (tmp_path / "canary.json").write_text("{}")
    assert damage(tmp_path).startswith(f"{tmp_path / 'canary.json'} has 2 bytes, the manifest says ")


def test_what_is_all_but_drawn_is_not_recorded() -> None:
    dialect = open_dialect(SHIPPED)
    with pytest.raises(ValueError, match="no case of up to 128 tokens has an answer clear enough"):
        canary(open_core(SHIPPED, CoreOptions()), dialect, [], "fp32")


def test_a_clear_answer_holds_for_other_number_formats_and_no_other_engine(tmp_path: Path) -> None:
    clear = Recorded(engine="embedded", dtype="fp32", prompt_ids=(1,), ids=(2,), margin_nats=3.0)
    record(tmp_path, clear)
    assert recorded(tmp_path, "embedded", "bf16") is not None
    assert recorded(tmp_path, "scripted", "fp32") is None
    record(tmp_path, Recorded(engine="embedded", dtype="fp32", prompt_ids=(1,), ids=(2,), margin_nats=0.01))
    assert recorded(tmp_path, "embedded", "bf16") is None
    assert recorded(tmp_path, "embedded", "fp32") is not None
