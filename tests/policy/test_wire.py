"""Frames survive the trip in whatever pieces they travel, and nothing but frames does."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from holdfast.domain.address import TcpAddress, UnixAddress, parse_address
from holdfast.domain.ports import Produced
from holdfast.domain.release import Exactness, Hold, Release
from holdfast.domain.replica import Load
from holdfast.domain.request import Finish, Sampling, TokenLogprob
from holdfast.domain.wire import (
    FRAME_BYTES_MAX,
    Abort,
    Cutter,
    Downward,
    Failed,
    Hello,
    Item,
    Ping,
    Pong,
    Submit,
    Tokens,
    Upward,
    Welcome,
    WireFault,
    downward,
    encode,
    item,
    upward,
)

numbers = some.integers(0, 2**63 - 1)
ids = some.lists(some.integers(0, 2**20), max_size=20)
reals = some.floats(allow_nan=False, allow_infinity=False)
pairs = some.lists(some.tuples(some.integers(0, 2**20), reals), max_size=3).map(tuple)
loads = some.builds(
    Load, numbers, numbers, numbers, numbers, cache_tokens=numbers, cache_tokens_max=numbers, draining=some.booleans()
)
samplings = some.builds(
    Sampling,
    temperature=reals,
    top_p=reals,
    top_k=some.integers(0, 100),
    min_p=reals,
    presence_penalty=reals,
    frequency_penalty=reals,
    logit_bias=pairs,
    logprobs=some.integers(-1, 20),
    ignore_eos=some.booleans(),
)
releases = some.builds(
    Release,
    model=some.text(),
    engine=some.text(),
    digest=some.text(),
    exactness=some.sampled_from(Exactness),
    grammar=some.sampled_from(Hold),
)
logprobs = some.none() | some.lists(some.builds(TokenLogprob, numbers, reals, pairs), max_size=3)
finishes = some.none() | some.sampled_from(Finish)
items = some.builds(Item, numbers, ids, finishes, logprobs, numbers)
words = some.none() | some.text()
upwards: some.SearchStrategy[Upward] = some.one_of(
    some.builds(Hello, numbers, some.text()),
    some.builds(Submit, numbers, ids, ids, samplings, numbers, numbers, ids.map(tuple)),
    some.builds(Abort, numbers),
    some.builds(Ping, numbers),
)
downwards: some.SearchStrategy[Downward] = some.one_of(
    some.builds(Welcome, numbers, some.text(), numbers, releases, loads, numbers),
    some.builds(Tokens, numbers, some.lists(items, max_size=4)),
    some.builds(Failed, numbers, some.text(), some.text(), words, words),
    some.builds(Pong, numbers, loads),
)


def cut(cutter: Cutter, data: bytes, sizes: list[int]) -> list[bytes]:
    """Feed `data` in pieces of the given sizes, round and round."""
    bodies, start, turn = [], 0, 0
    while start < len(data):
        size = sizes[turn % len(sizes)]
        bodies += list(cutter.feed(data[start : start + size]))
        start, turn = start + size, turn + 1
    return bodies


@given(some.lists(upwards, max_size=5), some.lists(some.integers(1, 40), min_size=1))
def test_what_goes_up_arrives_whole_and_in_order(frames: list[Upward], sizes: list[int]) -> None:
    data = b"".join(encode(frame) for frame in frames)
    assert [upward(body) for body in cut(Cutter(), data, sizes)] == frames


@given(some.lists(downwards, max_size=5), some.lists(some.integers(1, 40), min_size=1))
def test_what_comes_down_arrives_whole_and_in_order(frames: list[Downward], sizes: list[int]) -> None:
    data = b"".join(encode(frame) for frame in frames)
    assert [downward(body) for body in cut(Cutter(), data, sizes)] == frames


@given(downwards, some.integers(1, 200))
def test_a_frame_cut_short_is_held_back(frame: Downward, missing: int) -> None:
    data = encode(frame)
    missing = min(missing, len(data))
    cutter = Cutter()
    assert list(cutter.feed(data[:-missing])) == []
    assert [downward(body) for body in cutter.feed(data[-missing:])] == [frame]


@given(some.binary(max_size=300), some.lists(some.integers(1, 40), min_size=1))
def test_garbage_raises_a_wire_fault_or_waits_for_more(data: bytes, sizes: list[int]) -> None:
    for decode in (upward, downward):
        try:
            for body in cut(Cutter(), data, sizes):
                decode(body)
        except WireFault as fault:
            assert str(fault)


@given(upwards, some.data())
def test_a_damaged_byte_never_raises_anything_else(frame: Upward, data: some.DataObject) -> None:
    damaged = bytearray(encode(frame))
    place = data.draw(some.integers(0, len(damaged) - 1))
    damaged[place] ^= data.draw(some.integers(1, 255))
    try:
        for body in Cutter().feed(bytes(damaged)):
            upward(body)
    except WireFault as fault:
        assert str(fault)


@given(upwards)
def test_words_of_one_direction_are_garbage_in_the_other(frame: Upward) -> None:
    (body,) = Cutter().feed(encode(frame))
    with pytest.raises(WireFault, match="not a frame"):
        downward(body)


@given(some.integers(FRAME_BYTES_MAX + 1, 2**32 - 1), some.binary(max_size=20))
def test_a_length_over_the_limit_is_refused_before_anything_is_kept(size: int, rest: bytes) -> None:
    with pytest.raises(WireFault, match="over the limit"):
        list(Cutter().feed(size.to_bytes(4, "little") + rest))


@given(
    some.builds(
        Submit,
        stream=numbers,
        prompt_ids=ids,
        delivered_ids=ids,
        sampling=samplings,
        max_tokens=numbers,
        seed=numbers,
        stop_ids=ids.map(tuple),
    )
)
def test_the_core_gets_every_field_of_the_attempt(frame: Submit) -> None:
    work = frame.work()
    for name in work.__struct_fields__:
        assert getattr(work, name) == getattr(frame, name)


@given(numbers, some.builds(Produced, numbers, ids, finishes, logprobs, numbers))
def test_an_item_says_what_was_produced(stream: int, made: Produced) -> None:
    assert item(stream, made) == Item(stream, made.ids, made.finish, made.logprobs, made.cached_tokens)


@pytest.mark.parametrize("body", [b"\x93\x02\x01" + b"\x91" * 100_000, b"\x92\x00\xa2\xff\xff", b"\xc1", b""])
def test_what_the_decoder_trips_over_is_a_wire_fault_too(body: bytes) -> None:
    for decode in (upward, downward):
        with pytest.raises(WireFault):
            decode(body)


def test_a_step_for_32_streams_is_small() -> None:
    frame = Tokens(10_000, [Item(stream, [120_000]) for stream in range(1000, 1032)])
    assert len(encode(frame)) < 32 * 16


@given(some.integers(0, 65535), some.sampled_from(["127.0.0.1", "localhost", "::1", "replica-0.pods"]))
def test_addresses_survive_being_written(port: int, host: str) -> None:
    for address in (TcpAddress(host, port), UnixAddress(f"/run/{host}")):
        assert parse_address(str(address)) == address


@pytest.mark.parametrize("text", ["", "unix:", "127.0.0.1", "127.0.0.1:", ":80", "host:port", "host:99999", "h:-1"])
def test_what_is_no_address_is_told_so(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not an address: write unix:/path/to\.sock or host:port"):
        parse_address(text)
