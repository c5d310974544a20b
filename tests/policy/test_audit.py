"""The audit chain: whatever is changed, taken out, put in or cut off is found."""

import msgspec
import pytest

from holdfast.policy.audit import BEGINNING, Broken, Entry, Head, Sound, digest, following, verify


def chain(count: int) -> tuple[bytes, Head]:
    log, before = b"", BEGINNING
    for number in range(1, count + 1):
        line = msgspec.json.encode(
            Entry(number=number, at=1.5 * number, who="uid 7", act="drain", what={"n": str(number)}, before=before)
        )
        log, before = log + line + b"\n", digest(line)
    return log, Head(number=count, digest=before, size_bytes=len(log))


def why(log: bytes, head: Head | None, anchor: tuple[int, str] | None = None) -> str:
    verdict = verify(log, head, anchor)
    assert isinstance(verdict, Broken), verdict
    return verdict.why


def test_a_whole_log_is_sound_and_so_is_an_empty_one():
    log, head = chain(3)
    assert verify(log, head) == Sound(head, "3 entries, none changed, missing or put in")
    assert verify(b"", None) == Sound(Head(), "nothing was recorded yet")


def test_every_flipped_bit_of_every_byte_is_found():
    log, head = chain(4)
    for at in range(len(log)):
        for bit in range(8):
            changed = bytearray(log)
            changed[at] ^= 1 << bit
            assert isinstance(verify(bytes(changed), head), Broken), (at, bit)


def test_cut_anywhere_it_is_found():
    log, head = chain(4)
    for at in range(len(log)):
        assert isinstance(verify(log[:at], head), Broken), at
    lines = log.splitlines(keepends=True)
    assert why(b"".join(lines[:3]), head) == "the log ends with entry 3, its head knows 4: the end was cut"


def test_a_line_taken_out_put_in_or_moved_is_found():
    log, head = chain(4)
    one, two, three, four = log.splitlines(keepends=True)
    assert "lines are missing" in why(one + three + four, head)
    assert "or were put in" in why(one + two + two + three + four, head)
    assert isinstance(verify(one + three + two + four, head), Broken)
    forged, _ = chain(5)
    assert why(log + forged.splitlines(keepends=True)[4] + b"x\n", head) == "line 6 is not an entry"


def test_more_than_one_line_beyond_the_head_is_not_believed_and_one_is_an_interrupted_write():
    log, head = chain(3)
    _, earlier = chain(2)
    _, earliest = chain(1)
    verdict = verify(log, earlier)
    assert isinstance(verdict, Sound)
    assert "was interrupted before the head knew it" in verdict.why
    assert why(log, earliest) == "there are 3 entries, and the head knows 1: some were put in at the end"
    assert isinstance(verify(log, head), Sound)


@pytest.mark.parametrize("number", [-1, 99])
def test_a_head_that_was_changed_is_found(number: int) -> None:
    log, head = chain(3)
    assert why(log, None) == "the head is missing: whether the end of the log was cut can't be told"
    assert isinstance(verify(log, Head(number=number, digest=head.digest, size_bytes=head.size_bytes)), Broken)
    assert isinstance(verify(log, Head(number=3, digest="f" * 64, size_bytes=head.size_bytes)), Broken)
    assert isinstance(verify(log, Head(number=3, digest=head.digest, size_bytes=1)), Broken)


def test_a_log_written_anew_with_its_head_is_found_by_an_anchor():
    log, head = chain(4)
    anchor = (2, digest(log.splitlines()[1]))
    assert isinstance(verify(log, head, anchor), Sound)
    other = log.replace(b"uid 7", b"uid 8")
    again, before = b"", BEGINNING
    for line in other.splitlines():
        entry = msgspec.json.decode(line, type=Entry)
        anew = msgspec.json.encode(msgspec.structs.replace(entry, before=before))
        again, before = again + anew + b"\n", digest(anew)
    forged = Head(number=4, digest=before, size_bytes=len(again))
    assert isinstance(verify(again, forged), Sound)
    assert why(again, forged, anchor) == "entry 2 is not the one of the anchor: the log was written anew since"


def test_the_next_entry_follows_one_whose_writer_was_interrupted_and_nothing_else():
    log, head = chain(3)
    _, earlier = chain(2)
    last = log.splitlines()[2]
    assert following(earlier, last) == head
    assert following(head, last) == head
    assert following(head, b"not one") == head
    assert following(head, None) == head
