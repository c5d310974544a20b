"""holdfast replica --engine scripted: answers known beforehand. With a model folder they are made of its tokenizer's words."""

import argparse
import os

from msgspec import structs

from holdfast.pearl.options import OpenCore
from holdfast.sim.levers import LeveredCore, serve_levers
from holdfast.sim.scripted import Script, ScriptedCore, plain_vocabulary, poisons_of
from holdfast.store.model_folder import weights_of

POISON_ENV = "HOLDFAST_POISON"  # for drills: poisons of every scripted replica of a site, ID:KIND:TOKENS with commas


def open_core(args: argparse.Namespace) -> OpenCore:
    """Raises OSError or ValueError with a sentence for the user."""
    script = Script(
        model=args.serve_as or (args.model.resolve().name if args.model else "scripted"),
        slots=args.slots,
        queue_max=args.queue,
        context_tokens_max=args.context,
        token_s=args.token_ms / 1000,
        tokens_per_step=args.instant,
        answer_tokens=args.answer_tokens,
        mishap=args.mishap,
        poisons=(*args.poison, *poisons_of(os.environ.get(POISON_ENV, ""))),
    )
    if args.model is not None:
        vocabulary, vocab_size = plain_vocabulary((args.model / "tokenizer.json").read_bytes())
        weights = weights_of(args.model)
        script = structs.replace(script, vocabulary=vocabulary, vocab_size=vocab_size, weights=weights)
    if args.levers is None:
        return ScriptedCore(script)
    core = LeveredCore(script)
    serve_levers(args.levers, core.pull)
    return core
