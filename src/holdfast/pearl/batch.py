"""The batch loop: answers join and leave at any step, all share one forward pass, and none disturbs another.

A step feeds each running answer its newest token, and each new one a piece of its prompt; whoever has read everything gets a
token. Memory is allocated when the core opens: slots, places and the queue are its bounds, and what goes over them is refused
with a sentence.
"""

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from holdfast.domain.fault import BadRequest, EngineRefused
from holdfast.domain.ports import Produced, Work
from holdfast.domain.release import Release
from holdfast.domain.replica import Load
from holdfast.domain.request import Finish
from holdfast.pearl.constraint import FIELD, Compiled, Constraint, Grammars
from holdfast.pearl.layout import runs, shares
from holdfast.pearl.options import CoreOptions
from holdfast.pearl.sampler import Choice, Taste, choose
from holdfast.pearl.sheet import Cells, Sheet
from holdfast.pearl.slots import Slots
from holdfast.policy.intake import check, finish_after, finish_before


class Brain(Protocol):
    """What computes logits: pearl's own model, or one of transformers'. Slots and places are its cache's."""

    places: int
    vocab_size: int
    eos_ids: tuple[int, ...]

    @property
    def cache(self) -> Cells: ...

    def forward(self, sheet: Sheet) -> Tensor:
        """Logits [picks, vocab] float32 for the sheet's picks, in order; every row's state is kept in the cache."""
        ...


@dataclass(slots=True)
class _Attempt:
    ticket: int
    work: Work
    ids: list[int]  # prompt, delivered tokens and what was made since
    taste: Taste
    stops: frozenset[int]
    compiling: "Future[Compiled] | None" = None
    slot: int = -1
    fed: int = 0  # tokens whose latents are in the slot
    cached: int = 0

    @property
    def unread(self) -> int:
        return len(self.ids) - self.fed


class BatchCore:
    """Implements the Core port over a Brain."""

    def __init__(self, model: Brain, release: Release, options: CoreOptions, grammars: Grammars) -> None:
        self.context_tokens_max = model.places
        self.vocab_size = model.vocab_size
        self._model = model
        self._release = release
        self._options = options
        self._grammars = grammars
        self._slots = Slots(options.slots)
        self._queue: deque[_Attempt] = deque()
        self._running: dict[int, _Attempt] = {}
        self._over: list[Produced] = []
        self._steps = 0
        self._like = torch.zeros(model.vocab_size, device=options.device)

    def submit(self, ticket: int, work: Work) -> None:
        """See the port."""
        check(work, self._model.vocab_size, self.context_tokens_max)
        if ticket in self._running or any(attempt.ticket == ticket for attempt in self._queue):
            raise EngineRefused(f"ticket {ticket} is taken by a running attempt")
        done = finish_before(work, self.context_tokens_max)
        if done is not None:
            self._over.append(Produced(ticket, [], done))
            return
        slots, waiting = self._options.slots, len(self._queue)
        if len(self._running) + waiting >= slots + self._options.queue_max:
            raise EngineRefused(f"all {slots} slots are taken and {waiting} attempts wait")
        attempt = self._attempt(ticket, work)
        if attempt.compiling is not None and attempt.compiling.done():
            self._bind(attempt)
        self._queue.append(attempt)

    def _attempt(self, ticket: int, work: Work) -> _Attempt:
        stops = frozenset(work.stop_ids)
        if work.sampling.ignore_eos:
            stops -= frozenset(self._model.eos_ids)
        taste = Taste(work.sampling, work.seed, work.delivered_ids, self._like)
        compiling = self._grammars.compiled(work.sampling.grammar) if work.sampling.grammar else None
        return _Attempt(ticket, work, work.prompt_ids + work.delivered_ids, taste, stops, compiling)

    def _bind(self, attempt: _Attempt) -> None:
        """Hold it to its grammar from here on. Raises BadRequest."""
        work = attempt.work
        attempt.taste.constraint = self._grammars.begin(work.sampling.grammar, work.delivered_ids, attempt.stops)
        attempt.compiling = None

    def abort(self, ticket: int) -> None:
        """See the port."""
        attempt = self._running.get(ticket)
        if attempt is not None:
            # Finite logits show that all latents behind them are sound; where none have come yet, nobody knows.
            unproven = len(attempt.ids) == len(attempt.work.prompt_ids) + len(attempt.work.delivered_ids)
            self._leave(attempt, spoilt=unproven)
            return
        self._queue = deque(attempt for attempt in self._queue if attempt.ticket != ticket)
        self._over = [produced for produced in self._over if produced.ticket != ticket]

    def step(self) -> list[Produced]:
        """See the port. Whoever reads a prompt is in the answer too, with no ids."""
        with torch.inference_mode():
            return self._step()

    def _step(self) -> list[Produced]:
        produced, self._over = self._over, []
        produced += self._seat_all()
        if not self._running:
            return produced
        sheet, picked, read = self._write()
        logits = self._model.forward(sheet)
        self._steps += 1
        for attempt, tokens in read:
            self._slots.hold(attempt.slot, attempt.ids[attempt.fed : attempt.fed + tokens])
            attempt.fed += tokens
            if attempt.unread:
                produced.append(Produced(attempt.ticket, []))
        if picked:
            tastes = [attempt.taste for attempt in picked]
            choices = choose(logits, tastes, [len(attempt.ids) for attempt in picked])
            produced.extend(self._take(a, choice) for a, choice in zip(picked, choices, strict=True))
        return produced

    def load(self) -> Load:
        """See the port."""
        return Load(
            step=self._steps,
            running=len(self._running),
            queued=len(self._queue),
            slots=self._options.slots,
            cache_tokens=sum(attempt.fed for attempt in self._running.values()),
            cache_tokens_max=self._options.slots * self.context_tokens_max,
        )

    def release(self) -> Release:
        """See the port."""
        return self._release

    def _seat_all(self) -> list[Produced]:
        """Give slots to those who wait, in turn; whose grammar is still being compiled waits on. Those that ended at once."""
        ended, compiling = [], []
        while self._queue and self._slots.free:
            attempt = self._queue.popleft()
            if attempt.compiling is not None and not attempt.compiling.done():
                compiling.append(attempt)
                continue
            try:
                if attempt.compiling is not None:
                    self._bind(attempt)
            except BadRequest as bad:
                ended.append(Produced(attempt.ticket, [], fault=bad.why, param=bad.param or FIELD))
                continue
            constraint = attempt.taste.constraint
            if constraint is not None and constraint.over:
                ended.append(Produced(attempt.ticket, [], Finish.STOP))
            else:
                self._seat(attempt)
        self._queue.extendleft(reversed(compiling))
        return ended

    def _seat(self, attempt: _Attempt) -> None:
        attempt.slot, source, tokens = self._slots.take(attempt.ids)
        if source != attempt.slot:
            self._model.cache.copy(source, attempt.slot, tokens)
        attempt.fed = tokens
        attempt.cached = min(tokens, len(attempt.work.prompt_ids))
        self._running[attempt.ticket] = attempt

    def _leave(self, attempt: _Attempt, *, spoilt: bool = False) -> None:
        del self._running[attempt.ticket]
        if spoilt:
            self._model.cache.clear(attempt.slot)
        self._slots.leave(attempt.slot, spoilt=spoilt)

    def _write(self) -> tuple[Sheet, list[_Attempt], list[tuple[_Attempt, int]]]:
        """The step's sheet, who gets a token from it (in the order of its picks), and who reads how much."""
        sheet, cache = Sheet(), self._model.cache
        talking = {a.slot: a for a in self._running.values() if a.unread == 1}
        reading = [a for a in self._running.values() if a.unread > 1]
        slots = sorted(talking)
        lengths = [cache.length_for(len(talking[slot].ids)) for slot in slots]
        picked: list[_Attempt] = []
        for first, last in runs(slots, lengths, cache.near_places):
            row = len(sheet.ids)
            for slot in range(first, last + 1):
                attempt = talking.get(slot)
                if attempt is None:
                    sheet.spare(cache)
                else:
                    sheet.one(cache, slot, attempt.ids[-1], attempt.fed)
                    picked.append(attempt)
            sheet.parts.append((row, len(sheet.ids), first, last - first + 1))
        read = [(attempt, 1) for attempt in picked]
        sizes = shares([a.unread for a in reading], self._budget(reading))
        for attempt, size in sorted(zip(reading, sizes, strict=True), key=lambda pair: pair[0].slot):
            if size:
                sheet.many(cache, attempt.slot, attempt.ids[attempt.fed : attempt.fed + size], attempt.fed)
                read.append((attempt, size))
                if size == attempt.unread:
                    sheet.picks.append(len(sheet.ids) - 1)
                    picked.append(attempt)
        return sheet, picked, read

    def _budget(self, reading: list[_Attempt]) -> int:
        """Prompt tokens of this step. Answers that another replica has left are waited for: when many come at once, steps
        are longer for a moment, so that all go on sooner (33 transcripts of 100 tokens on one core: 430 ms, not 580; the
        others then wait 160 ms for a token instead of 65, four times)."""
        chunk = self._options.prefill_chunk_tokens
        moved = sum(attempt.unread for attempt in reading if attempt.work.delivered_ids)
        return self._options.catch_up * chunk if moved > chunk else chunk

    def _take(self, attempt: _Attempt, choice: Choice) -> Produced:
        """Give the attempt its token, or end it."""
        constraint = attempt.taste.constraint
        if not choice.sound and constraint is not None and (constraint.over or constraint.fault):
            return self._end(attempt, constraint)
        if not choice.sound:
            self._leave(attempt, spoilt=True)
            why = f"the logits at position {len(attempt.ids)} are not finite"
            return Produced(attempt.ticket, [], fault=why)
        token = choice.token
        if token in attempt.stops:
            self._leave(attempt)
            return Produced(attempt.ticket, [], Finish.STOP, cached_tokens=attempt.cached)
        attempt.ids.append(token)
        attempt.taste.said(token)
        answer_tokens = len(attempt.ids) - len(attempt.work.prompt_ids)
        finish = finish_after(attempt.work, answer_tokens, self.context_tokens_max)
        if finish is None and constraint is not None and constraint.over:
            finish = Finish.STOP
        produced = Produced(attempt.ticket, [token], finish, cached_tokens=attempt.cached)
        attempt.cached = 0
        if choice.logprob is not None:
            produced.logprobs = [choice.logprob]
        if finish is not None:
            self._leave(attempt)
        return produced

    def _end(self, attempt: _Attempt, constraint: Constraint) -> Produced:
        """The grammar lets nothing follow: the answer is complete, or can't be."""
        self._leave(attempt)
        if constraint.over:
            return Produced(attempt.ticket, [], Finish.STOP, cached_tokens=attempt.cached)
        said = len(attempt.ids) - len(attempt.work.prompt_ids)
        why = f"the grammar can't be kept after token {said} of the answer: {constraint.fault}"
        return Produced(attempt.ticket, [], fault=why, param=FIELD)
