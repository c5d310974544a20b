"""Which bytes of a model folder count."""

from functools import partial
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy import model_digest
from holdfast.policy.model_digest import BLOCK_BYTES, BLOCKS, WHOLE_BYTES_MAX, File, digests


def file(name, data):
    return File(name, len(data), lambda at, count: data[at : at + count])


def huge(header, touched, size=WHOLE_BYTES_MAX + 5 * BLOCK_BYTES, flip=-1, name="model.safetensors"):
    """A file of zeros that nobody has, but for its header's length and one flipped byte; `touched` gathers what was read."""

    def read(at, count):
        touched.append((at, count))
        found = bytearray(min(count, size - at))
        if at == 0:
            found[:8] = header.to_bytes(8, "little")
        if at <= flip < at + len(found):
            found[flip - at] = 1
        return bytes(found)

    return File(name, size, read)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.binary(max_size=40)), max_size=4), st.binary(max_size=8))
def test_small_files_are_read_whole_with_their_names_and_sizes(files, beginning):
    whole = beginning + b"".join(f"|{name}|{len(data)}|".encode() + data for name, data in files)
    assert digests([file(*one) for one in files], beginning) == (sha256(whole).hexdigest(),)


def test_each_beginning_has_its_digest_and_the_files_are_read_once():
    reads = []

    def read(at, count, data):
        reads.append(at)
        return data[at : at + count]

    both = digests([File("a", 3, partial(read, data=b"xyz"))], b"build 1", b"")
    assert reads == [0]
    assert both == (*digests([file("a", b"xyz")], b"build 1"), *digests([file("a", b"xyz")], b""))
    assert both[0] != both[1]


def test_of_a_large_file_the_header_and_blocks_spread_over_it_are_read():
    touched = []
    digests([huge(3 * BLOCK_BYTES, touched)], b"")
    assert touched[0] == (0, 8)
    header, blocks = touched[1:4], touched[4:]
    assert [at for at, _ in header] == [8, 8 + BLOCK_BYTES, 8 + 2 * BLOCK_BYTES]
    assert len(blocks) == BLOCKS
    assert blocks[0][0] == 0
    assert sum(blocks[-1]) == WHOLE_BYTES_MAX + 5 * BLOCK_BYTES
    assert sum(count for _, count in touched) < 70 * BLOCK_BYTES


@pytest.mark.parametrize("flip", [10, BLOCK_BYTES // 2, WHOLE_BYTES_MAX + 5 * BLOCK_BYTES - 1])
def test_a_change_in_what_is_read_shows(flip):
    assert digests([huge(100, [])], b"") != digests([huge(100, [], flip=flip)], b"")


def test_a_header_that_claims_too_much_is_read_up_to_a_bound():
    touched = []
    digests([huge(1 << 62, touched)], b"")
    assert max(at for at, _ in touched) <= model_digest.WHOLE_BYTES_MAX + 5 * BLOCK_BYTES


def test_of_a_large_gguf_a_header_is_read_whose_length_it_does_not_say():
    magic, touched = int.from_bytes(b"GGUF\3\0\0\0", "little"), []
    digests([huge(magic, touched, name="m.gguf")], b"")
    assert sum(count for _, count in touched) == model_digest.GGUF_HEAD_BYTES + BLOCKS * BLOCK_BYTES
    changed = huge(magic, [], name="m.gguf", flip=model_digest.GGUF_HEAD_BYTES - 1)
    assert digests([huge(magic, [], name="m.gguf")], b"") != digests([changed], b"")
