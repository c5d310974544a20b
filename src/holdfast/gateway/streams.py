"""Streams: an answer that was begun once can be had again from any worker, as far as it is and as it goes on.

While its owner lives, its journal is followed. When the owner is gone, frozen, or has left the answer because its client went
away, exactly one of those who want it goes on with the transcript: the one whose claim is granted. A claim is let go as soon
as its holder's own record can be found; who is granted one therefore looks once more before acting.
"""

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing

from msgspec import structs

from holdfast.domain.fault import BadRequest, EngineLost
from holdfast.domain.ports import Clock, Shelf
from holdfast.domain.request import Chunk, Finish
from holdfast.gateway.archive import Archive, Kept
from holdfast.gateway.journal import Journal, claim_of, claim_of_key
from holdfast.gateway.service import Service

POLL_S = 0.01
POLL_MAX_S = 0.05  # between two looks when nothing came
LOOK_ROUND_POLLS = 16  # after so many empty looks somebody else may own it
SIGN_OF_LIFE_S = 1.0
RESERVE_S = 2.0  # how long a retry waits for the record of the request that it repeats


class Streams:
    """`service` is the whole stack: it serves those answers that are taken over."""

    def __init__(self, journal: Journal, archive: Archive, shelf: Shelf, service: Service, clock: Clock) -> None:
        self._journal, self._archive, self._shelf = journal, archive, shelf
        self._service, self._clock = service, clock
        self.followed: Counter[str] = Counter()  # by generation: how many follow it here

    def complaint(self, generation: str) -> str:
        """Why this answer does not outlive this worker; empty when it does."""
        live = self._journal.live.get(generation)
        return live.unfit or self._journal.complaint if live is not None else self._journal.complaint

    async def find(self, generation: str) -> Kept | None:
        """The answer of that id, wherever it is written; None when nobody has it (any more)."""
        await self._archive.catch_up()
        return self._archive.find(generation)

    async def reserve(self, digest: str) -> Kept | None:
        """The answer that was begun under this idempotency digest; None when it is ours to begin. Then `release` it.

        Raises:
            BadRequest: somebody has been about to begin it for too long.
        """
        clock = self._clock
        give_up = clock.now() + RESERVE_S
        while not self._journal.complaint:
            await self._archive.catch_up()
            kept = self._archive.find_idempotent(digest)
            if kept is not None:
                return kept
            try:
                if self._shelf.claim(claim_of_key(digest)):
                    kept = self._archive.find_idempotent(digest)
                    if kept is not None:
                        self.release(digest)
                    return kept
            except OSError:
                return None
            if clock.now() >= give_up:
                why = "The request with this Idempotency-Key has not begun yet; retry shortly."
                raise BadRequest(why, "idempotency-key", "idempotency_in_progress")
            await clock.sleep(POLL_S)
        return None

    def release(self, digest: str) -> None:
        """Let go of what `reserve` gave; the journal does so by itself once the answer has begun."""
        self._shelf.remove(claim_of_key(digest))

    async def follow(self, kept: Kept, key: str = "") -> AsyncGenerator[Chunk, None]:
        """All of the answer: first what there is, then what comes, to its finish.

        `key` is the API key of who asks, for the layers, should we have to go on with it.

        Raises:
            Fault: as it ended. EngineLost: it can't be continued, because other releases answer now, or for its grammar's sake.
        """
        name, had, empty, quiet_since = kept.begun.id, 0, 0, self._clock.now()
        self.followed[name] += 1
        try:
            while True:
                if len(kept.ids) > had or kept.finish is not None:
                    yield _news(kept, had)
                    had, empty, quiet_since = len(kept.ids), 0, self._clock.now()
                if kept.finish is not None:
                    return
                if kept.fault is not None:
                    raise kept.fault
                claim = self._claimed(kept) if kept.left or not kept.alive else ""
                if claim:
                    async with aclosing(self._go_on(kept, claim, key, had)) as chunks:
                        async for chunk in chunks:
                            yield chunk
                    return
                if self._clock.now() - quiet_since >= SIGN_OF_LIFE_S:
                    quiet_since = self._clock.now()
                    yield Chunk([], waiting="its owner has made no token for a while", moves=kept.moves)
                await self._clock.sleep(min(POLL_MAX_S, POLL_S * (1 + empty // 8)))
                empty += 1
                self._archive.update(kept)
                if kept.left or not kept.alive or empty % LOOK_ROUND_POLLS == 0:
                    newest = self._archive.find(name)
                    if newest is None:  # it was left half written, when there was no room, and its sheet's time is over
                        raise EngineLost("the record of this answer is gone before its end was written; ask again")
                    kept = newest
        finally:
            self.followed[name] -= 1
            if not self.followed[name]:
                del self.followed[name]

    def _claimed(self, kept: Kept) -> str:
        """The claim on going on with it, empty when somebody else has it. Raises EngineLost."""
        self._look_at_release(kept)
        claim = claim_of(kept.begun.id, kept.owners + 1)
        try:
            if not self._shelf.claim(claim):
                return ""
        except OSError:
            return ""
        newest = self._archive.find(kept.begun.id) or kept
        if newest.owners > kept.owners or newest.ended or (newest.alive and not newest.left):
            self._shelf.remove(claim)  # somebody was quicker, or it woke up
            return ""
        return claim

    def _look_at_release(self, kept: Kept) -> None:
        """Raise EngineLost if nobody here may go on with it."""
        kinds = self._journal.kinds
        begun = kinds.named(kept.begun.release)
        if begun is None:
            return
        if kept.ids and any(one.digest == begun.digest for one in kinds.all):
            why = kinds.closed(begun, kept.begun.sampling)
            if why:
                raise EngineLost(f"its worker is gone, and nobody may go on with this answer: {why}; ask again")
        elif kinds.closed(begun, kept.begun.sampling) if kept.ids else kinds.strange(begun):
            raise EngineLost("this answer was begun by another release, which is gone; ask again")

    async def _go_on(self, kept: Kept, claim: str, key: str, had: int) -> AsyncGenerator[Chunk, None]:
        """Be its next owner."""
        journal, begun = self._journal, self._journal.kinds.named(kept.begun.release) if kept.ids else None
        generation = structs.replace(kept.generation, key=key, urgent=True, begun=begun)
        try:
            if len(kept.ids) > had:
                yield _news(kept, had)
            journal.inherit(kept)
            if len(kept.ids) >= generation.max_tokens:  # only the word that it ended was lost
                journal.end(journal.begin(generation), Finish.LENGTH)
                yield Chunk([], finish=Finish.LENGTH, moves=kept.moves)
                return
            async with aclosing(self._service(generation)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            journal.disinherit(generation.id)
            self._shelf.remove(claim)


def _news(kept: Kept, had: int) -> Chunk:
    """What came since the first `had` tokens."""
    rows = kept.rows[had:] if kept.begun.sampling.logprobs >= 0 else None
    return Chunk(
        kept.ids[had:],
        finish=kept.finish,
        logprobs=rows or None,
        cached_tokens=0 if had else kept.cached,
        moves=kept.moves,
    )
