"""All bugs for parrot.py: of answers, and here those of asking, reading and looking."""

from parrot_answer_bugs import CONTINUING, ENDINGS
from planting import CLOSES, DIALS, ENDS, HUNG, OPEN, bug

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
        "forgets to abort what has not begun",
        "a_hang_up_before_the_first_token_frees_the_engine",
        "made to its end all the same",
        (CLOSES, CLOSES.replace("writer.close()", "self.kept.append(writer) if first else writer.close()")),
        (OPEN, OPEN + "        self.kept: list[object] = []\n"),
        (
            "        reader, writer = await self._dial(EngineRefused)\n",
            "        first = True\n        reader, writer = await self._dial(EngineRefused)\n",
        ),
    ),
    bug(
        "ends all answers with one",
        "a_fault_of_one_answer_is_not_its_neighbours",
        "hung up midway|broke|LENGTH",
        (DIALS, f"{DIALS}        self.kept.append(writer)\n"),
        (
            "said = await hear(reader)\n",
            "try:\n                    said = await hear(reader)\n                except EngineLost:\n"
            "                    for other in self.kept:\n                        other.close()\n"
            "                    raise\n",
        ),
        (OPEN, OPEN + "        self.kept: list[asyncio.StreamWriter] = []\n"),
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
        "too slow|and the answer ended",
        ("said = await hear(reader)\n", "said = await self.heard(reader)\n"),
        (
            "    def _room(",
            "    async def heard(self, reader: asyncio.StreamReader) -> Said:\n        try:\n"
            "            return await asyncio.wait_for(hear(reader), 0.005)\n        except TimeoutError:\n"
            "            raise EngineLost('it was too slow') from None\n\n    def _room(",
        ),
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
        "cached_prompt_tokens_are_told_once_with_the_first_ids_or_at_the_end",
        "told more than once",
        ("said.cached if first else 0", "said.cached"),
    ),
)
LOOKING = (
    bug("is never ready", "a_probe_tells_the_load", "is called not ready", ("ready=True", "ready=False")),
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
        ('raise EngineLost(f"the engine said nothing in {self.look_s:g} s") from None', "return Said()"),
    ),
    bug(
        "waits for a silent door",
        "a_silent_door_is_told_by_the_probe_and_readers_can_give_up",
        HUNG,
        ("async with asyncio.timeout(self.look_s):", "async with asyncio.timeout(None):"),
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
        ("Finding(Ability.PRIORITY, False,", "Finding(Ability.PRIORITY, True,"),
    ),
    bug(
        "describes another release each time",
        "its_release_is_the_same_whenever_it_is_learnt",
        "told to be another",
        ('f"parrot {who.version} {who.model}"', 'f"parrot {id(who)}"'),
    ),
)
BUGS = (*ENDINGS, *CONTINUING, *REFUSING, *READING, *LOOKING)
