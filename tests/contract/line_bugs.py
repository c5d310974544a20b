"""Lines with one bug each, to simulated replicas, and the story of lines that must find it."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from holdfast.domain.ports import Stream
from holdfast.domain.replica import Load
from holdfast.domain.request import Chunk, Generation
from holdfast.sim.line import Frame, SimLine


class Forgetful(SimLine):
    """Counts what has ended among what is in flight."""

    @property
    def in_flight(self) -> int:
        return self._numbers


class Crumbling(SimLine):
    """Never merges what waited."""

    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        async with aclosing(super().generate(generation)) as chunks:
            async for chunk in chunks:
                for id in chunk.ids[:-1]:
                    yield Chunk([id])
                yield Chunk(chunk.ids[-1:], chunk.finish)


class Stale(SimLine):
    """Keeps no load."""

    @property
    def last_load(self) -> Load:
        return Load()


class Nameless(SimLine):
    """Makes a boot's name up."""

    @property
    def boot(self) -> str:
        return f"{id(self)}"


class Abandoning(SimLine):
    """Closes without hanging up."""

    async def close(self) -> None:
        self._end("closed")


class Deaf(SimLine):
    """Never finds out that it is lost."""

    @property
    def gone(self) -> str:
        return ""


class Lenient(SimLine):
    """Can't fence one answer."""

    def fail(self, why: str, generation: str = "", planned: bool = False) -> None:
        if not generation:
            super().fail(why, generation, planned)


class Hasty(SimLine):
    """Fences without telling the replica."""

    def fail(self, why: str, generation: str = "", planned: bool = False) -> None:
        super().fail(why, generation, planned)

    def _say(self, said: object) -> None:
        if not getattr(said, "abort", False):
            super()._say(said)


class Blind(SimLine):
    """Shows its watcher nothing."""

    def streams(self) -> Iterable[Stream]:
        return []


class Gapless(SimLine):
    """Tells of no gaps."""

    def _arrived(self, frame: Frame) -> None:
        self.on_gap = None
        super()._arrived(frame)


class Clinging(SimLine):
    """Does not hear that its replica leaves."""

    def _arrived(self, frame: Frame) -> None:
        if frame.load is not None:
            frame.load = Load(step=frame.load.step, running=frame.load.running)
        super()._arrived(frame)


BUGS: tuple[tuple[type[SimLine], str, str], ...] = (
    (Forgetful, "nothing_is_in_flight_after_an_answer", "in_flight"),
    (Crumbling, "what_a_slow_reader_missed_is_one_chunk", "<= 2"),
    (Stale, "the_last_load_is_the_last_probe", "last_load"),
    (Nameless, "two_lines_meet_the_same_boot_and_release", "two boots"),
    (Abandoning, "a_line_that_closes_takes_its_work_along", "made to its end all the same"),
    (Deaf, "a_line_that_is_lost_says_why_and_owes_nothing", "gone"),
    (Lenient, "a_fenced_answer_gets_nothing_more_and_the_others_do", "DID NOT RAISE"),
    (Hasty, "all_answers_can_be_fenced_and_the_line_still_serves", "made to its end all the same"),
    (Blind, "a_watcher_sees_streams_pings_and_gaps", "not enough values"),
    (Gapless, "a_watcher_sees_streams_pings_and_gaps", ">= 2"),
    (Clinging, "a_draining_replica_refuses_and_finishes_what_it_has", "it hung"),
)
