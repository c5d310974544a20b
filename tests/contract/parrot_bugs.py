"""Bugs to be planted in parrot.py, each with the story that must fail, and words of what it then says.

A bug is its adapter's source with some text in the place of other text, so that each shows how little it takes.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import parrot

from holdfast.domain.ports import ForeignEngine

SOURCE = Path(parrot.__file__).read_text("utf-8")
HUNG = "it hung"
BROKEN = "a_broken_answer_is_lost_and_can_be_continued-"
GOES_ON = "an_answer_goes_on_after_every_token-"
DIALS = "reader, writer = await self._dial(EngineRefused)\n"
CLOSES = "            writer.close()\n\n    def _room"
OPEN = "self._closed = False\n"
ENDS = "yield Chunk([], FINISHES[said.end])"


@dataclass
class Bug:
    """`changes` are pairs: what stands in the source once, and what takes its place. `says` is a pattern."""

    name: str
    story: str
    says: str
    changes: tuple[tuple[str, str], ...]

    def planted(self, folder: Path) -> Callable[[int, float], ForeignEngine]:
        """The adapter with it."""
        text = SOURCE
        for right, wrong in self.changes:
            assert text.count(right) == 1, f"the bug has no place, or several: {right!r}"
            text = text.replace(right, wrong)
        path = folder / "parrot_with_a_bug.py"
        path.write_text(text, "utf-8")
        spec = importlib.util.spec_from_file_location("parrot_with_a_bug", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        adapter: Callable[[int, float], ForeignEngine] = module.Parrot
        return adapter


def bug(name: str, story: str, says: str, *changes: tuple[str, str]) -> Bug:
    return Bug(name, story, says, changes)


ENDINGS = (
    bug(
        "trusts the done mark",
        BROKEN + "unfinished",
        "DID NOT RAISE",
        ('raise EngineLost("the engine is done, and said no finish")', "return Chunk([], Finish.STOP)"),
        ("first = False\n", "first = False\n                if said.done:\n                    return\n"),
    ),
    bug(
        "swallows the error object",
        BROKEN + "fault",
        "DID NOT RAISE",
        ('raise EngineLost(f"the engine says: {said.error}")', 'return Said(end="stop")'),
    ),
    bug(
        "takes an abort for an end",
        BROKEN + "aborted",
        "DID NOT RAISE",
        ("FINISHES = {", 'FINISHES = {"abort": Finish.STOP, '),
    ),
    bug(
        "takes a cut for an end",
        BROKEN + "cut",
        "DID NOT RAISE",
        ('raise EngineLost("the engine hung up midway")', 'return Said(end="length")'),
    ),
    bug("lets errors of sockets out", BROKEN + "reset", "reset by peer", ("except (OSError, ", "except (")),
    bug(
        "lets errors of parsers out",
        BROKEN + "garbage",
        "malformed",
        ("except (OSError, ValueError, msgspec.DecodeError)", "except OSError"),
    ),
    bug(
        "skips garbage",
        BROKEN + "garbage",
        "hung up midway|DID NOT RAISE",
        ("said = msgspec.json.decode(text, type=Said)\n", "said = decoded(text)\n"),
        (
            "async def hear(",
            "def decoded(text: bytes) -> Said:\n    try:\n        return msgspec.json.decode(text, type=Said)\n"
            '    except ValueError:\n        return Said(end="length")\n\n\nasync def hear(',
        ),
    ),
    bug(
        "waits for ever after a reset",
        BROKEN + "reset",
        HUNG,
        (
            'raise EngineLost(f"the connection to the engine broke: {error}") from error',
            "await asyncio.Event().wait()",
        ),
    ),
    bug(
        "is never the same after a reset",
        BROKEN + "reset",
        HUNG,
        (DIALS, f"await self.lock.acquire()\n        {DIALS}"),
        (ENDS, f"{ENDS}\n                    self.lock.release()"),
        (OPEN, OPEN + "        self.lock = asyncio.Lock()\n"),
    ),
    bug(
        "keeps tokens until the end",
        BROKEN + "fault",
        "what was made before is lost",
        (
            "yield self._chunk(said, generation, first)",
            "kept = [said.id] if first else [*kept, said.id]\n"
            "                if len(kept) == room:\n"
            "                    yield Chunk(kept)",
        ),
    ),
    bug(
        "says the last token again when it is cut",
        BROKEN + "cut",
        "more came than was made",
        ("said = await hear(reader)\n", "said = await self.heard(reader)\n"),
        (
            "    def _room(",
            "    async def heard(self, reader: asyncio.StreamReader) -> Said:\n"
            "        try:\n            self.last = await hear(reader)\n"
            "        except EngineLost as lost:\n"
            "            if getattr(self, 'lost', None) is None and self.last.id >= 0:\n"
            "                self.lost = lost\n                return self.last\n            raise\n"
            "        return self.last\n\n    def _room(",
        ),
    ),
    bug(
        "says the finish twice",
        "an_answer_has_max_tokens_ids_and_ends_once",
        "a chunk came after the finish",
        (ENDS, f"{ENDS}\n                    {ENDS}"),
    ),
    bug("says no finish", "an_answer_has_max_tokens_ids_and_ends_once", "without a finish", (ENDS, "yield Chunk([])")),
    bug(
        "calls every end a stop",
        "an_answer_has_max_tokens_ids_and_ends_once",
        "max_tokens ended it",
        ('"length": Finish.LENGTH', '"length": Finish.STOP'),
    ),
    bug(
        "tells the stop id",
        "a_stop_id_ends_the_answer_and_is_not_part_of_it",
        "the stop id is among",
        ("if said.id in generation.stop_ids:", "if not said:"),
    ),
    bug(
        "calls the stop id a length",
        "a_stop_id_ends_the_answer_and_is_not_part_of_it",
        "STOP",
        ('"stop": Finish.STOP', '"stop": Finish.LENGTH'),
    ),
)
CONTINUING = (
    bug(
        "doubles the token at the cut",
        GOES_ON + "greedy",
        "continued after token 1",
        ("generation.prompt_ids + generation.delivered_ids", "generation.prompt_ids + generation.delivered_ids[:-1]"),
    ),
    bug(
        "forgets what was delivered",
        GOES_ON + "greedy",
        "continued after token 1",
        ("generation.prompt_ids + generation.delivered_ids", "generation.prompt_ids"),
    ),
    bug(
        "counts from the cut anew",
        GOES_ON + "sampled",
        "more tokens came than",
        ("min(generation.max_tokens - delivered,", "min(generation.max_tokens,"),
    ),
    bug(
        "samples what should be greedy",
        GOES_ON + "greedy",
        "continued after token 1",
        ("greedy=generation.sampling.temperature == 0", "greedy=False"),
    ),
    bug(
        "asks for no tokens",
        "an_answer_that_was_complete_ends_by_length_and_says_nothing_more",
        "out of range",
        ("if room <= 0:", "if room < 0:"),
    ),
    bug(
        "calls a complete answer wrong",
        "an_answer_that_was_complete_ends_by_length_and_says_nothing_more",
        "nothing to do",
        ("yield Chunk([], Finish.LENGTH)\n            return", 'raise BadRequest("there is nothing to do")'),
    ),
    bug(
        "forgets the stop ids",
        "an_answer_whose_end_alone_was_lost_ends_at_once",
        "only a stop id was left",
        ("stop=generation.stop_ids", "stop=()"),
    ),
    bug(
        "forgets that the context ends",
        "a_context_that_fills_up_ends_the_answer_by_length",
        "out of range",
        (
            "return min(generation.max_tokens - delivered, context - len(prompt) - delivered)",
            "return generation.max_tokens - delivered",
        ),
    ),
    bug(
        "calls a full context wrong",
        "a_context_that_was_filled_elsewhere_is_the_end_and_no_fault",
        "leave no room",
        ("if len(prompt) >= context:", "if len(prompt + generation.delivered_ids) >= context:"),
    ),
    bug(
        "ignores the seed",
        "the_same_seed_is_the_same_sample_and_another_is_another",
        "another seed gave the same",
        ("seed=derived_seed(generation.seed, len(generation.delivered_ids))", "seed=0"),
    ),
    bug(
        "draws a seed of its own",
        "the_same_seed_is_the_same_sample_and_another_is_another",
        "the same seed gave other",
        ("seed=derived_seed(generation.seed, len(generation.delivered_ids))", "seed=id(object()) + id(reader)"),
    ),
)
REFUSING = (
    bug(
        "takes a refusal for a loss",
        "a_refusal_is_told_as_one_and_costs_nothing-crowded",
        "takes no more",
        ('raise EngineRefused(f"the engine takes', 'raise EngineLost(f"the engine takes'),
    ),
    bug(
        "is silent of why",
        "a_refusal_is_told_as_one_and_costs_nothing-refused",
        "the fault says nothing",
        ('raise EngineRefused(f"the engine takes no more: {said.refused}")', 'raise EngineRefused("")'),
    ),
    bug(
        "waits where it is refused",
        "a_full_engine_refuses_and_those_inside_go_on",
        HUNG,
        ('raise EngineRefused(f"the engine takes no more: {said.refused}")', "await asyncio.Event().wait()"),
    ),
    bug(
        "takes a wrong request for a loss",
        "what_the_engine_finds_wrong_is_the_requests_own_fault",
        "can't do that",
        ('raise BadRequest(f"the engine says', 'raise EngineLost(f"the engine says'),
    ),
    bug("sends an empty prompt", "an_empty_prompt_is_bad", "empty", ("if not prompt:", "if prompt is None:")),
    bug(
        "sends any id",
        "a_token_that_does_not_exist_is_bad",
        "out of range",
        ("if not 0 <= min(prompt) <= max(prompt) < self._who.vocabulary:", "if False:"),
    ),
    bug(
        "calls a long prompt complete",
        "a_prompt_longer_than_the_context_is_bad",
        "DID NOT RAISE",
        ("if len(prompt) >= context:", "if False:"),
    ),
    bug(
        "lets errors of dialling out",
        "a_dead_engine_loses_every_answer_and_its_door_is_shut",
        "ConnectionRefusedError|refused|Connect call failed",
        ("except OSError as error:", "except KeyError as error:"),
    ),
)
READING = (
    bug(
        "forgets to abort",
        "a_reader_can_give_up_on_a_stall_and_the_engine_is_free",
        HUNG,
        (CLOSES, CLOSES.replace("writer.close()", "self.kept = [*getattr(self, 'kept', ()), writer]")),
    ),
    bug(
        "aborts when the answer is over",
        "a_hang_up_frees_the_engine",
        "made to its end all the same",
        (CLOSES, CLOSES.replace("writer.close()", "self.kept = [*getattr(self, 'kept', ()), writer]")),
    ),
    bug(
        "keeps connections of answers that ended",
        "nothing_piles_up",
        HUNG,
        (ENDS, f"{ENDS}\n                    self.kept.append(writer)\n                    writer = None"),
        (CLOSES, CLOSES.replace("writer.close()", "writer and writer.close()")),
        (OPEN, OPEN + "        self.kept: list[object] = []\n"),
    ),
    bug(
        "serves one after the other",
        "a_stall_of_one_answer_is_not_its_neighbours",
        HUNG,
        (DIALS, "await self.lock.acquire()\n        " + DIALS),
        (CLOSES, CLOSES.replace("writer.close()", "writer.close()\n            self.lock.release()")),
        (OPEN, OPEN + "        self.lock = asyncio.Lock()\n"),
    ),
    bug(
        "mixes two answers up",
        "answers_at_once_are_what_each_is_alone",
        "beside each other",
        ("so_far = generation.prompt_ids", "self.so_far = generation.prompt_ids"),
        ("ids=so_far", "ids=self.so_far"),
    ),
    bug(
        "has no patience",
        "a_slow_first_token_is_waited_for_and_nothing_is_lost",
        "it stalls, and the answer ended",
        ("said = await hear(reader)", "said = await asyncio.wait_for(hear(reader), 0.005)"),
    ),
    bug(
        "drops what a slow reader missed",
        "a_slow_reader_gets_every_token",
        "tokens are missing",
        (
            "yield self._chunk(said, generation, first)",
            "if first or not reader._buffer:\n                    yield self._chunk(said, generation, first)",
        ),
    ),
    bug(
        "drops logprobs",
        "logprobs_come_with_every_token",
        "not every token has",
        ("if generation.sampling.logprobs >= 0:", "if False:"),
    ),
    bug(
        "tells logprobs that nobody asked for",
        "logprobs_come_with_every_token",
        "nobody asked",
        ("if generation.sampling.logprobs >= 0:", "if True:"),
    ),
    bug(
        "tells cached tokens again and again",
        "cached_prompt_tokens_are_told_once_with_the_first_ids",
        "told more than once",
        ("said.cached if first else 0", "said.cached"),
    ),
)
LOOKING = (
    bug(
        "counts its looks as steps",
        "a_frozen_engine_shows_no_step_however_green_its_health",
        HUNG,
        (
            'told = await self._ask("look")\n',
            'told = await self._ask("look")\n        self.looks = getattr(self, "looks", 0) + 1\n',
        ),
        ("step=told.steps", "step=told.steps + self.looks"),
    ),
    bug(
        "knows no steps",
        "the_step_grows_while_tokens_are_made_and_rests_with_them",
        HUNG,
        ("step=told.steps", "step=7"),
    ),
    bug(
        "tells of no work",
        "a_frozen_engine_shows_no_step_however_green_its_health",
        "no evidence of a wedge",
        ("running=told.running", "running=0"),
    ),
    bug(
        "calls a silent door busy",
        "a_silent_door_is_told_by_the_probe_and_readers_can_give_up",
        "DID NOT RAISE",
        ('raise EngineLost(f"the engine said nothing in {self._look_s:g} s") from None', "return Said()"),
    ),
    bug(
        "waits for a silent door",
        "a_silent_door_is_told_by_the_probe_and_readers_can_give_up",
        HUNG,
        ("async with asyncio.timeout(self._look_s):", "async with asyncio.timeout(None):"),
    ),
    bug(
        "is ready whatever happens",
        "a_dead_engine_loses_every_answer_and_its_door_is_shut",
        "DID NOT RAISE",
        (
            'told = await self._ask("look")\n',
            "try:\n            told = await self._ask('look')\n        except EngineLost:\n            told = Said()\n",
        ),
    ),
    bug(
        "serves when it is closed",
        "a_closed_adapter_refuses_and_can_be_closed_again",
        "DID NOT RAISE",
        ("        self._closed = True\n", "        pass\n"),
    ),
    bug(
        "forgets its release",
        "it_describes_its_release",
        "None",
        ("        return Release(", "        return None and Release("),
    ),
    bug(
        "promises more than it keeps",
        "it_describes_its_release",
        "the release promises more",
        ("exactness=Exactness.GREEDY", "exactness=Exactness.EXACT"),
    ),
    bug(
        "says not how it found out",
        "what_it_learns_carries_sentences_and_is_so",
        "how it was found",
        ('"every token comes with its own"', '""'),
    ),
    bug(
        "finds what is not there",
        "what_it_learns_carries_sentences_and_is_so",
        "not as the stage says",
        ("Finding(Ability.GRAMMAR, False,", "Finding(Ability.GRAMMAR, True,"),
    ),
    bug(
        "describes another release each time",
        "its_release_is_the_same_whenever_it_is_learnt",
        "told to be another",
        ('digest = f"parrot {who.version} {who.model}"', 'digest = f"parrot {id(who)}"'),
    ),
)
BUGS = (*ENDINGS, *CONTINUING, *REFUSING, *READING, *LOOKING)
