"""Bugs in how the parrot's answers end, and in how they go on elsewhere."""

from planting import BROKEN, DIALS, ENDS, GOES_ON, HUNG, OPEN, bug

REPLAYS = "    @replayed  # parrots begin a grammar with the answer\n"
COUNTED = """
def counted(generate):
    async def again(self, generation):
        had = len(generation.delivered_ids) if generation.sampling.grammar else 0
        if had:
            generation = msgspec.structs.replace(generation, delivered_ids=[])
        async for chunk in generate(self, generation):
            if had and chunk.ids:
                had -= 1
            else:
                yield chunk

    return again


"""

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
        "begins a grammar anew after a cut",
        "an_answer_under_a_grammar_goes_on_after_every_token",
        "continued after token 1",
        (REPLAYS, ""),
    ),
    bug(
        "loses every answer under a grammar that is cut",
        "an_answer_under_a_grammar_goes_on_after_every_token",
        "not within one",
        (
            REPLAYS + "    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:\n",
            "    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:\n"
            "        if generation.sampling.grammar and generation.delivered_ids:\n"
            "            raise EngineLost('it can begin with a grammar, and not within one')\n",
        ),
    ),
    bug(
        "makes an answer again and looks at its length alone",
        "what_a_grammar_would_not_have_said_is_never_gone_on_with",
        "DID NOT RAISE",
        (REPLAYS, "    @counted\n"),
        ("LOOK_S = 5.0", COUNTED + "LOOK_S = 5.0"),
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
