"""The codec under damage: whatever is believed is what was written, in order, up to the damage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain import journal
from holdfast.domain.fault import BadRequest, EngineLost, Expired, Fault, Overloaded, Poisonous
from holdfast.domain.journal import Kind
from holdfast.domain.request import Chunk, Finish, Generation, Sampling, TokenLogprob

SIZE = 4096
IDS = st.lists(st.integers(0, 2**32 - 1), max_size=6)


@st.composite
def written(draw: st.DrawFn) -> list[bytes]:
    """A few records of a few streams."""
    made = []
    for _ in range(draw(st.integers(1, 8))):
        number = draw(st.integers(0, 2**32 - 1))
        match draw(st.integers(0, 3)):
            case 0:
                asked = Generation(
                    id=draw(st.text("abcdef0123", max_size=24)), prompt_ids=draw(IDS), note=draw(st.binary())
                )
                made.append(journal.begin_record(number, journal.begun_of(asked, b"k" * 16, "r1")))
            case 1:
                made.append(journal.ids_record(number, draw(st.integers(0, 1000)), Chunk(draw(IDS)), True))
            case 2:
                made.append(journal.end_record(number, draw(st.sampled_from(Finish))))
            case _:
                made.append(journal.left_record(number))
    return made


def sheet(records: list[bytes]) -> bytearray:
    data = bytearray(SIZE)
    journal.stamp(memoryview(data), 1.5)
    at = journal.START
    for record in records:
        data[at : at + len(record)] = record
        at += len(record)
    return data


def believed(data: bytearray) -> list[bytes]:
    buffer = memoryview(data)
    found = journal.records(buffer, journal.START)
    return [bytes(buffer[at - journal.FRAME_BYTES - journal.TAG_BYTES : end]) for _, _, at, end in found]


@given(written(), st.data())
def test_a_tail_cut_at_any_byte_costs_only_the_record_it_hits(records: list[bytes], data: st.DataObject) -> None:
    whole = sheet(records)
    assert believed(whole) == records
    total = sum(map(len, records))
    cut = data.draw(st.integers(0, total))
    whole[journal.START + cut : journal.START + total] = bytes(total - cut)
    ends = [sum(map(len, records[: i + 1])) for i in range(len(records))]
    kept = believed(whole)
    full = [record for record, end in zip(records, ends, strict=True) if end <= cut]
    # a cut that takes only zero bytes has changed nothing: the record is still whole
    assert kept[: len(full)] == full
    assert kept == records[: len(kept)]
    assert len(kept) <= len(full) + 1


@given(written(), st.data())
def test_nothing_behind_a_flipped_bit_is_believed(records: list[bytes], data: st.DataObject) -> None:
    whole = sheet(records)
    total = sum(map(len, records))
    bit = data.draw(st.integers(0, total * 8 - 1))
    whole[journal.START + bit // 8] ^= 1 << bit % 8
    ends = [sum(map(len, records[: i + 1])) for i in range(len(records))]
    assert believed(whole) == [record for record, end in zip(records, ends, strict=True) if end <= bit // 8]


def test_a_generation_comes_back_as_it_was_but_for_its_key() -> None:
    asked = Generation(
        id="ab" * 12, prompt_ids=[1, 2, 70_000], sampling=Sampling(0.5, logprobs=2, logit_bias=((3, -1.0),)), max_tokens=9,
        seed=2**62, stop_ids=(4,), key="secret", tenant="t", idempotency="i" * 32, note=b"\x00n",
    )  # fmt: skip
    record = memoryview(journal.begin_record(7, journal.begun_of(asked, b"d" * 16, "r1")))
    assert b"secret" not in bytes(record)
    ((kind, number, at, end),) = journal.records(record, 0)
    assert (kind, number) == (Kind.BEGIN, 7)
    assert journal.names_of(record, at) == ("ab" * 12, "i" * 32)
    again = journal.generation_of(journal.read_begin(record, at, end), [5])
    fields = {name: getattr(asked, name) for name in asked.__struct_fields__} | {"key": "", "delivered_ids": [5]}
    assert again == Generation(**fields)


@pytest.mark.parametrize("chunk", [Chunk([5]), Chunk([5, 6, 2**31]), Chunk([]), Chunk([2**40]), Chunk([-3])])
def test_tokens_come_back(chunk: Chunk) -> None:
    record = memoryview(journal.ids_record(3, 11, chunk, True))
    ((kind, _, at, end),) = journal.records(record, 0)
    rich = journal.read_tokens(record, kind, at, end)
    assert (rich.at, rich.ids) == (11, chunk.ids)


@pytest.mark.parametrize("token", [0, 5, 2**32 - 1])
def test_one_token_put_in_its_place_is_the_record_of_one_token(token: int) -> None:
    buffer = memoryview(bytearray(100))
    assert journal.put_one(buffer, 10, 3, 11, token)
    record = journal.ids_record(3, 11, Chunk([token]), True)
    assert buffer == bytes(10) + record + bytes(90 - journal.ONE_BYTES)
    assert len(record) == journal.ONE_BYTES


@pytest.mark.parametrize("token", [-3, 2**32])
def test_an_id_that_no_vocabulary_has_is_not_put(token: int) -> None:
    buffer = memoryview(bytearray(100))
    assert not journal.put_one(buffer, 10, 3, 11, token)
    assert buffer == bytes(100)


def test_tokens_come_back_with_what_hangs_on_them() -> None:
    rows = [TokenLogprob(5, -0.5, ((5, -0.5), (6, -1.0)))]
    record = memoryview(journal.ids_record(3, 0, Chunk([5], logprobs=rows, cached_tokens=4, moves=2), False))
    ((kind, _, at, end),) = journal.records(record, 0)
    rich = journal.read_tokens(record, kind, at, end)
    assert (rich.rows, rich.cached, rich.moves) == (rows, 4, 2)


@pytest.mark.parametrize(
    "fault",
    [
        BadRequest("b", "field", "code"), Overloaded("o", 2.5, 429), Poisonous("p", "f" * 8, 99.0), EngineLost("e"),
        Expired("x"), Fault("plain"),
    ],
)  # fmt: skip
def test_a_fault_comes_back(fault: Fault) -> None:
    record = memoryview(journal.end_record(1, None, fault))
    ((_, _, at, end),) = journal.records(record, 0)
    again = journal.fault_of(journal.read_end(record, at, end))
    assert type(again) is type(fault)
    assert vars(again) == vars(fault)


def test_a_body_of_another_version_is_damaged_and_not_guessed_at() -> None:
    buffer = memoryview(b"\x00\x00\xc1")
    with pytest.raises(journal.Damaged):
        journal.read_begin(buffer, 0, 3)
    with pytest.raises(journal.Damaged):
        journal.read_tokens(buffer, Kind.RICH, 0, 3)
    with pytest.raises(journal.Damaged):
        journal.read_tokens(buffer, Kind.IDS, 0, 3)
    with pytest.raises(journal.Damaged):
        journal.read_end(buffer, 0, 3)
