"""An answer under a grammar: what it may say, how it ends, and that it is the same answer wherever it was cut."""

import json
import math
import random
import re
from pathlib import Path
from shutil import copytree

import jsonschema
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from tokenizers import Tokenizer

from holdfast.domain.fault import BadRequest
from holdfast.domain.ports import Core, Produced, Work
from holdfast.domain.request import Finish, Sampling
from holdfast.pearl.constraint import GRAMMAR_BYTES_MAX, Grammars
from holdfast.pearl.open import open_core
from holdfast.pearl.options import CoreOptions
from holdfast.pearl.sampler import Taste, choose

SHIPPED = Path(__file__).parents[2] / "src" / "holdfast" / "shipped" / "pearl"
EOS = 1
VOCAB = 1280
WORDS = Tokenizer.from_file(str(SHIPPED / "tokenizer.json"))
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "c"]}, "maxItems": 4},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
PERSON = "start: %json " + json.dumps({**SCHEMA, "x-guidance": {"whitespace_flexible": False}})
SAMPLINGS = [
    Sampling(temperature=0, grammar=PERSON),
    Sampling(temperature=1.2, grammar=PERSON),
    Sampling(temperature=0.9, top_p=0.9, frequency_penalty=0.5, min_p=0.01, grammar=PERSON),
]


def words(text: str) -> list[int]:
    return list(WORDS.encode(text, add_special_tokens=False).ids)


ASKED = [0, 3, *words("Make a JSON object with name Ann and age 12."), 4, 6]


def work(sampling: Sampling, said: list[int] | None = None, seed: int = 7, tokens: int = 120) -> Work:
    return Work(
        prompt_ids=ASKED, delivered_ids=said or [], sampling=sampling, max_tokens=tokens, seed=seed, stop_ids=(EOS,)
    )


def answers(core: Core, wanted: dict[int, Work]) -> dict[int, tuple[list[int], Produced]]:
    """Run these attempts to their end: ids, and the last that was said of each."""
    found: dict[int, list[int]] = {ticket: [] for ticket in wanted}
    last: dict[int, Produced] = {}
    for ticket, one in wanted.items():
        core.submit(ticket, one)
    while len(last) < len(wanted):
        for produced in core.step():
            found[produced.ticket] += produced.ids
            if produced.finish is not None or produced.fault:
                last[produced.ticket] = produced
    return {ticket: (found[ticket], last[ticket]) for ticket in wanted}


def refused(core: Core, one: Work) -> tuple[str, str | None]:
    """Why, and the field: at once where the grammar is known, else once it is compiled."""
    try:
        ids, last = answers(core, {1: one})[1]
    except BadRequest as bad:
        return bad.why, bad.param
    assert (ids, last.finish) == ([], None)
    return last.fault, last.param


def alone(core: Core, one: Work) -> list[int]:
    return answers(core, {1: one})[1][0]


@pytest.fixture(scope="module")
def core() -> Core:
    return open_core(SHIPPED, CoreOptions(slots=8, context_tokens_max=256))


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars.open(SHIPPED, VOCAB, (EOS,))


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["greedy", "sampled", "filtered"])
@pytest.mark.parametrize("seed", range(4))
def test_an_answer_is_json_that_its_schema_describes(core: Core, sampling: Sampling, seed: int) -> None:
    ids, last = answers(core, {1: work(sampling, seed=seed)})[1]
    assert last.finish is Finish.STOP
    assert last.ids == ids[-1:], "it ends with the token that leaves nothing to say, without waiting for a stop id"
    jsonschema.validate(json.loads(WORDS.decode(ids, skip_special_tokens=False)), SCHEMA)


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["greedy", "sampled", "filtered"])
def test_it_goes_on_from_every_cut_as_if_nothing_had_been(core: Core, sampling: Sampling) -> None:
    whole = alone(core, work(sampling))
    other = open_core(SHIPPED, CoreOptions(slots=64, context_tokens_max=256))
    cuts = range(len(whole) + 1)
    resumed = answers(other, {k: work(sampling, whole[:k]) for k in cuts})
    assert [whole[:k] + resumed[k][0] for k in cuts] == [whole] * len(cuts)
    assert {resumed[k][1].finish for k in cuts} == {Finish.STOP}
    assert resumed[len(whole)][0] == []


@settings(max_examples=15, deadline=None)
@given(seed=some.integers(0, 2**64 - 1), share=some.floats(0, 1), crowd=some.integers(0, 4), hot=some.booleans())
def test_cuts_and_neighbours_change_nothing(core: Core, seed: int, share: float, crowd: int, hot: bool) -> None:
    sampling = Sampling(temperature=1.3 if hot else 0, grammar=PERSON)
    whole = alone(core, work(sampling, seed=seed))
    cut = round(share * len(whole))
    others = {n: work(Sampling(grammar=PERSON if n % 2 else ""), seed=n, tokens=20) for n in range(10, 10 + crowd)}
    found = answers(core, {1: work(sampling, whole[:cut], seed), **others})
    assert whole[:cut] + found[1][0] == whole
    for n, other in others.items():
        assert found[n][0] == alone(core, other)


def test_stop_ids_are_allowed_exactly_where_the_grammar_may_end(core: Core) -> None:
    ask = Sampling(temperature=0, grammar="start: /[0-9]{2,}/", logit_bias=((EOS, 100.0),))
    ids, last = answers(core, {1: work(ask)})[1]
    assert len(WORDS.decode(ids)) == 2, "the end is what it wants most, and not before two digits"
    assert (last.finish, last.ids) == (Finish.STOP, [])
    ids, last = answers(core, {1: work(Sampling(temperature=0, grammar='start: "yes" "!"'))})[1]
    assert (WORDS.decode(ids), last.finish) == ("yes!", Finish.STOP)


def test_without_stop_ids_it_ends_where_the_grammar_does(core: Core) -> None:
    ask = Sampling(temperature=0, grammar='start: "ab" | "ab" "c"?', ignore_eos=True)
    ids, last = answers(core, {1: work(ask)})[1]
    assert WORDS.decode(ids) in ("ab", "abc")
    assert last.finish is Finish.STOP


def test_marks_are_taken_by_id_and_never_as_text(core: Core) -> None:
    ids, _ = answers(
        core, {1: work(Sampling(temperature=1.5, grammar="start: <[7]> TEXT <[11]>\nTEXT: /(.|\\n){40,60}/"))}
    )[1]
    assert (ids[0], ids[-1]) == (7, 11)
    assert min(ids[1:-1]) > 15


def test_what_was_delivered_must_match(core: Core) -> None:
    wrong = [*words('{"name":"A"'), EOS]
    for _ in range(2):
        why = f"delivered_ids[{len(wrong) - 1}] is token 1: its grammar does not allow it there"
        assert refused(core, work(SAMPLINGS[0], wrong)) == (why, "delivered_ids")
        why, _ = refused(core, work(Sampling(grammar='start: "ab"'), words("ab, and more")))
        assert why.endswith("its grammar does not allow it there")
    assert core.load().running == core.load().queued == 0


@pytest.mark.parametrize(
    ("grammar", "why"),
    [
        ("start: (", "grammar can't be compiled: "),
        ("start: nothing", "grammar can't be compiled: .*unknown name.*nothing"),
        (
            'start: %json {"type": "object", "not": {}}',
            'grammar can\'t be compiled: .*Unimplemented keys: \\["not"\\]$',
        ),
        ("start: /" + "a" * GRAMMAR_BYTES_MAX + "/", f"grammar is {GRAMMAR_BYTES_MAX + 9} bytes; the limit is 65536"),
    ],
)
def test_a_grammar_that_can_t_be_kept_is_refused_by_name(core: Core, grammar: str, why: str) -> None:
    for _ in range(2):
        said, field = refused(core, work(Sampling(grammar=grammar)))
        assert re.search(why, said)
        assert field == "grammar"


def test_others_go_on_while_a_grammar_is_compiled(core: Core) -> None:
    cases = [{"type": "object", "properties": {f"x{i}{j}": {"type": "string"} for j in range(4)}} for i in range(40)]
    large = "start: %json " + json.dumps({"anyOf": cases})
    core.submit(1, work(Sampling(temperature=0, ignore_eos=True), tokens=100))
    core.step()
    core.submit(2, work(Sampling(temperature=0, grammar=large), tokens=1))
    core.submit(3, work(Sampling(temperature=0), tokens=1))
    while (said := {one.ticket: one for one in core.step()}) and 3 not in said:
        assert 1 in said
    assert core.load().queued <= 1, "only the one whose grammar takes its time still waits"
    core.abort(1)
    while 2 not in said:
        said = {one.ticket: one for one in core.step() if one.ids}
    assert said[2].finish is Finish.LENGTH


def test_an_answer_whose_grammar_is_compiled_can_be_aborted(core: Core) -> None:
    core.submit(1, work(Sampling(grammar='start: "never seen before"')))
    assert core.load().queued == 1
    core.abort(1)
    assert core.step() == []
    assert core.load().queued == 0


def test_a_folder_without_a_tokenizer_refuses_grammars_alone(tmp_path: Path) -> None:
    folder = copytree(SHIPPED, tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    bare = open_core(folder, CoreOptions(slots=1))
    with pytest.raises(BadRequest, match=r"can't keep an answer to a grammar: its tokenizer\.json can't be read"):
        bare.submit(1, work(SAMPLINGS[0]))
    assert alone(bare, work(Sampling(temperature=0), tokens=5))


def test_max_tokens_still_bounds_it(core: Core) -> None:
    whole = alone(core, work(SAMPLINGS[0]))
    for tokens in (3, len(whole)):
        ids, last = answers(core, {1: work(SAMPLINGS[0], tokens=tokens)})[1]
        assert (ids, last.finish) == (whole[:tokens], Finish.LENGTH)


def test_the_mask_does_not_hide_logits_that_are_not_sound(grammars: Grammars) -> None:
    sampling = Sampling(temperature=0.8, grammar='start: "yes"')
    rows = torch.zeros(3, VOCAB)
    rows[1, 700] = math.nan
    tastes = [Taste(sampling, 1, [], rows) for _ in range(3)]
    for taste in tastes:
        taste.constraint = grammars.begin(sampling.grammar, [], frozenset((EOS,)))
    choices = choose(rows, tastes, [5, 5, 5])
    assert [choice.sound for choice in choices] == [True, False, True]
    assert choices[0].token == choices[2].token
    assert WORDS.decode([choices[0].token]) in ("y", "ye", "yes")


def test_logprobs_are_of_what_may_come(core: Core) -> None:
    core.submit(1, work(Sampling(temperature=0, grammar='start: "yes" | "no"', logprobs=20)))
    made: list[Produced] = []
    while not made:
        made = [one for one in core.step() if one.logprobs]
    ((row,),) = (one.logprobs or [] for one in made)
    assert row.top[0] == (row.id, row.logprob)
    assert {WORDS.decode([token])[0] for token, _ in row.top} == {"n", "y"}
    assert sum(math.exp(logprob) for _, logprob in row.top) == pytest.approx(1, abs=1e-5)
    core.abort(1)


HEAVY = 'start: %json {"type": "string", "pattern": "(.*a.{30}b.{30})*"}'  # its automaton has some 2^30 states


def test_a_grammar_that_one_answer_wears_out_serves_the_next(grammars: Grammars) -> None:
    worn, chance = grammars.begin(HEAVY, [], frozenset((EOS,))), random.Random(1)
    for token in words('"' + "".join(chance.choice("ab") for _ in range(400))):
        worn.apply(torch.zeros(VOCAB))
        if worn.fault:
            break
        worn.said(token)
    assert worn.fault == "lexer error: too many expressions constructed"
    fresh = grammars.begin(HEAVY, words('"b'), frozenset((EOS,)))
    row = torch.zeros(VOCAB)
    fresh.apply(row)
    assert not fresh.fault
    assert float(row[words("a")[0]]) == 0


def test_what_can_t_be_kept_any_more_ends_the_answer_by_name(core: Core) -> None:
    letters = tuple((words(letter)[0], 100.0) for letter in "ab")
    heavy = Sampling(temperature=5.0, grammar=HEAVY, logit_bias=letters)
    (ids, last), (whole, _) = answers(core, {1: work(heavy, tokens=200), 2: work(SAMPLINGS[0])}).values()
    assert (
        last.fault
        == f"the grammar can't be kept after token {len(ids)} of the answer: lexer error: too many expressions constructed"
    )
    assert (last.param, last.finish) == ("grammar", None)
    assert whole == alone(core, work(SAMPLINGS[0])), "the others notice nothing"
