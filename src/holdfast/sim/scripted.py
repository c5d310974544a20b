"""A core whose answers are known beforehand: each token is a pure function of (prompt, seed, absolute position).

Whoever knows the prompt and the seed knows the whole answer, so a token that was lost, doubled, reordered or taken from
another answer shows at once, and every replica continues every transcript exactly. It costs nothing, so gateways can be
measured against it; and it can be told to misbehave, one attempt at a time.
"""

import os
import signal
import struct
from collections import deque
from hashlib import blake2b, sha256
from threading import Event

import msgspec
from msgspec import Struct

from holdfast.domain.fault import BadRequest, EngineRefused
from holdfast.domain.ports import Produced, Work
from holdfast.domain.release import Exactness, Hold, Release
from holdfast.domain.replica import Load
from holdfast.domain.request import Finish, TokenLogprob

_MASK = (1 << 64) - 1
_PROMPTS_REMEMBERED = 256


class Poisoned(RuntimeError):
    """The prompt held the poison id: the whole process is meant to die of it, as of an illegal memory access."""


MISHAPS = ("refuse", "bad", "fault", "forget", "stall", "freeze", "hang")


class Mishap(Struct, frozen=True):
    """What befalls one attempt.

    refuse and bad: on arrival. The others once it has made `after_tokens`: fault (it fails), forget (it ends without a finish
    or a word), stall (it gets nothing more until `relent`), freeze (the whole core makes nothing more while the process's loop
    turns on), hang (the step never returns, as with a hung GPU).
    """

    kind: str
    after_tokens: int = 0


POISONS = ("raise", "abort", "segv", "silent")


class Poison(Struct, frozen=True):
    """A prompt that holds token `id` ends the process once its answer is at `after_tokens`, wherever those were made.

    raise: an exception out of the step. abort and segv: the signal, as from native code. silent: SIGKILL, as from the kernel
    when memory ran out; nothing is left behind.
    """

    id: int
    kind: str = "raise"
    after_tokens: int = 0

    def take_effect(self) -> None:
        """End this process.

        Raises:
            Poisoned: this poison's way.
        """
        if self.kind == "raise":
            raise Poisoned(f"token id {self.id} is poison")
        os.kill(os.getpid(), {"abort": signal.SIGABRT, "segv": signal.SIGSEGV, "silent": signal.SIGKILL}[self.kind])


def poisons_of(text: str) -> tuple[Poison, ...]:
    """Poisons as a list in words: ID:KIND:TOKENS, with commas between them."""
    found = []
    for word in filter(None, text.split(",")):
        id, kind, after = (*word.split(":"), "0")[:3]
        found.append(Poison(int(id), kind, int(after)))
    return tuple(found)


class Script(Struct, frozen=True, kw_only=True):
    """How a scripted core behaves."""

    model: str = "scripted"
    vocabulary: tuple[int, ...] = tuple(range(16, 272))  # ids that answers are made of: no special ones
    vocab_size: int = 512  # prompt ids at or above it are refused as bad
    slots: int = 32
    queue_max: int = 128
    context_tokens_max: int = 4096
    token_s: float = 0.0  # pause between steps, for the process that drives it
    tokens_per_step: int = 1
    prefill_chunk_tokens: int = 0  # prompt tokens read per step, one attempt; 0 reads any prompt at once
    answer_tokens: int = 0  # answers stop by themselves after so many tokens, if asked with stop ids; 0: at max_tokens
    mishap: Mishap | None = None  # befalls every attempt
    poisons: tuple[Poison, ...] = ()  # prompts that kill the process
    weights: str = ""  # the digest of the folder whose words it says; empty: of its model's name and vocabulary


def answer_key(prompt_ids: list[int], seed: int) -> int:
    """64 bits that stand for (prompt, seed)."""
    packed = struct.pack(f"<q{len(prompt_ids)}I", seed, *prompt_ids)
    return int.from_bytes(blake2b(packed, digest_size=8).digest(), "little")


def token_at(key: int, position: int, vocabulary: tuple[int, ...]) -> int:
    """The answer's token at a position, counted from its first token: splitmix64's finaliser over key and position."""
    z = (key + (position + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return vocabulary[(z ^ (z >> 31)) % len(vocabulary)]


def scripted_answer(prompt_ids: list[int], seed: int, tokens: int, script: Script) -> list[int]:
    """The first `tokens` ids of the answer, were nothing to stop it."""
    key = answer_key(prompt_ids, seed)
    return [token_at(key, position, script.vocabulary) for position in range(tokens)]


def plain_vocabulary(tokenizer_json: bytes) -> tuple[tuple[int, ...], int]:
    """The ids of a byte-level tokenizer that are words, digits or spaces in plain ASCII, and the size of the vocabulary.

    Answers made of them detokenise to readable text, and none is a special token.

    Raises:
        ValueError: not a tokenizers file with a vocabulary, or none of its tokens is plain.
    """
    try:
        read = msgspec.json.decode(tokenizer_json, type=_TokenizerFile)
    except msgspec.MsgspecError as error:
        raise ValueError(f"tokenizer.json can't be read: {error}") from error
    added = {token.id for token in read.added_tokens}
    # \u0120 is how byte-level tokenizers write a space
    plain = [id for text, id in read.model.vocab.items() if id not in added and _is_plain(text.replace("\u0120", " "))]
    if not plain:
        raise ValueError("tokenizer.json has no plain ASCII tokens to make answers of")
    return tuple(sorted(plain)), max(*read.model.vocab.values(), *added, 0) + 1


def _is_plain(text: str) -> bool:
    return text.isascii() and (text.isalnum() or text.startswith(" ")) and text.isprintable()


class _AddedToken(Struct):
    id: int


class _Vocabulary(Struct):
    vocab: dict[str, int]


class _TokenizerFile(Struct):
    model: _Vocabulary
    added_tokens: list[_AddedToken] = []


class _Attempt:
    __slots__ = ("key", "made", "mishap", "poison", "position", "ticket", "unread", "work")

    def __init__(self, ticket: int, work: Work, mishap: Mishap | None, poisons: tuple[Poison, ...]) -> None:
        self.ticket = ticket
        self.work = work
        self.mishap = mishap
        self.key = answer_key(work.prompt_ids, work.seed)
        self.position = len(work.delivered_ids)
        self.made = 0
        self.unread = len(work.prompt_ids) + len(work.delivered_ids)
        self.poison = next((one for one in poisons if one.id in work.prompt_ids), None) if poisons else None


class ScriptedCore:
    """Implements the Core port. `befall` queues a mishap for the next attempt, before the script's own; `frozen` may be set
    and reset at will."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.context_tokens_max = script.context_tokens_max
        self._queue: deque[_Attempt] = deque()
        self._running: dict[int, _Attempt] = {}
        self._befalling: deque[Mishap] = deque()
        self._seen: dict[int, None] = {}
        self.frozen = False
        self._steps = 0

    def befall(self, mishap: Mishap) -> None:
        """The next attempt that is submitted gets this."""
        self._befalling.append(mishap)

    def relent(self) -> None:
        """Attempts that are stalled go on, and so does a frozen core."""
        self.frozen = False
        for attempt in self._running.values():
            if attempt.mishap is not None and attempt.mishap.kind == "stall":
                attempt.mishap = None

    def submit(self, ticket: int, work: Work) -> None:
        """See the port."""
        script = self.script
        mishap = self._befalling.popleft() if self._befalling else script.mishap
        if mishap is not None and mishap.kind == "refuse":
            raise EngineRefused("scripted: told to refuse")
        if mishap is not None and mishap.kind == "bad":
            raise BadRequest("scripted: told to find the request wrong", "prompt_ids")
        if not work.prompt_ids:
            raise BadRequest("prompt_ids is empty: send at least one token", "prompt_ids")
        for token in (max(work.prompt_ids), min(work.prompt_ids)):
            if not 0 <= token < script.vocab_size:
                raise BadRequest(f"token id {token} is outside the vocabulary of {script.vocab_size}", "prompt_ids")
        if work.sampling.grammar:
            raise BadRequest("scripted answers are known beforehand and can't be kept to a grammar", "grammar")
        tokens = len(work.prompt_ids)
        if tokens >= script.context_tokens_max:
            raise BadRequest(
                f"{tokens} tokens leave no room in a context of {script.context_tokens_max}",
                "prompt_ids",
                "context_length_exceeded",
            )
        if len(self._queue) >= script.queue_max and len(self._running) >= script.slots:
            raise EngineRefused(f"all {script.slots} slots are taken and {len(self._queue)} attempts wait")
        self._queue.append(_Attempt(ticket, work, mishap, script.poisons))
        self._fill_slots()

    def abort(self, ticket: int) -> None:
        """See the port."""
        if self._running.pop(ticket, None) is None:
            self._queue = deque(attempt for attempt in self._queue if attempt.ticket != ticket)
        self._fill_slots()

    def step(self) -> list[Produced]:
        """One token (or `tokens_per_step`) for every running attempt. A frozen core makes nothing and counts nothing."""
        if self.frozen or not self._running:
            return []
        self._steps += 1
        produced = []
        for attempt in list(self._running.values()):
            if attempt.poison is not None and attempt.position >= attempt.poison.after_tokens:
                attempt.poison.take_effect()
            one = self._advance(attempt)
            if one is not None:
                produced.append(one)
                if one.finish is not None or one.fault:
                    del self._running[attempt.ticket]
            if self.frozen:
                break
        self._fill_slots()
        return produced

    def load(self) -> Load:
        """See the port. A frozen core's step does not grow."""
        return Load(
            step=self._steps,
            running=len(self._running),
            queued=len(self._queue),
            slots=self.script.slots,
            cache_tokens=sum(len(a.work.prompt_ids) + a.position for a in self._running.values()),
            cache_tokens_max=self.script.slots * self.script.context_tokens_max,
        )

    def release(self) -> Release:
        """Equal for equal models and vocabularies: pace, slots and mishaps don't change tokens."""
        text = f"scripted 1 {self.script.model} {self.script.vocabulary} {self.script.answer_tokens}"
        return Release(
            model=self.script.model,
            engine="scripted",
            digest=sha256(text.encode()).hexdigest(),
            exactness=Exactness.EXACT,
            version="1.0.0",
            weights=self.script.weights or sha256(text.encode()).hexdigest(),
            grammar=Hold.NONE,
        )

    def _fill_slots(self) -> None:
        while self._queue and len(self._running) < self.script.slots:
            attempt = self._queue.popleft()
            self._running[attempt.ticket] = attempt

    def _advance(self, attempt: _Attempt) -> Produced | None:
        chunk = self.script.prefill_chunk_tokens
        if attempt.unread > chunk > 0:
            attempt.unread -= chunk
            return Produced(attempt.ticket, [])
        produced = Produced(attempt.ticket, [])
        if attempt.made == 0:
            produced.cached_tokens = self._recall(attempt)
        for _ in range(self.script.tokens_per_step):
            if self._strike(attempt, produced):
                return produced if attempt.ticket in self._running else None
            produced.finish = self._finish_before(attempt) or self._one_token(attempt, produced)
            if produced.finish is not None:
                break
        return produced

    def _strike(self, attempt: _Attempt, produced: Produced) -> bool:
        """Let the attempt's mishap happen if it is due; true ends this attempt's step."""
        mishap = attempt.mishap
        if mishap is None or attempt.made < mishap.after_tokens:
            return False
        if mishap.kind == "fault":
            produced.fault = f"scripted: told to fail after {attempt.made} tokens"
        elif mishap.kind == "forget":
            del self._running[attempt.ticket]
        elif mishap.kind == "freeze":
            attempt.mishap = None
            self.frozen = True
        elif mishap.kind == "hang":
            Event().wait()
        return True

    def _finish_before(self, attempt: _Attempt) -> Finish | None:
        """The finish of an answer that was complete when it came here."""
        full = len(attempt.work.prompt_ids) + attempt.position >= self.script.context_tokens_max
        return Finish.LENGTH if attempt.position >= attempt.work.max_tokens or full else None

    def _one_token(self, attempt: _Attempt, produced: Produced) -> Finish | None:
        work = attempt.work
        token = token_at(attempt.key, attempt.position, self.script.vocabulary)
        ends_itself = attempt.position == self.script.answer_tokens > 0 and work.stop_ids
        if token in work.stop_ids or ends_itself:
            return Finish.STOP
        attempt.position += 1
        attempt.made += 1
        produced.ids.append(token)
        if work.sampling.logprobs >= 0:
            top = ((token, -0.5),) if work.sampling.logprobs else ()
            produced.logprobs = [*(produced.logprobs or ()), TokenLogprob(token, -0.5, top)]
        context_full = len(work.prompt_ids) + attempt.position >= self.script.context_tokens_max
        return Finish.LENGTH if attempt.position >= work.max_tokens or context_full else None

    def _recall(self, attempt: _Attempt) -> int:
        """Prompt tokens found in the cache: all but the last of a prompt that came before."""
        known = attempt.key in self._seen
        self._seen[attempt.key] = None
        if len(self._seen) > _PROMPTS_REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return len(attempt.work.prompt_ids) - 1 if known else 0
