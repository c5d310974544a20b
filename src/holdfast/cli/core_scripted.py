"""holdfast replica --engine scripted: answers known beforehand. With a model folder they are made of its tokenizer's words."""

import argparse

from msgspec import structs

from holdfast.pearl.options import OpenCore
from holdfast.sim.scripted import Script, ScriptedCore, plain_vocabulary


def open_core(args: argparse.Namespace) -> OpenCore:
    """Raises OSError or ValueError with a sentence for the user."""
    script = Script(
        model=args.serve_as or (args.model.resolve().name if args.model else "scripted"),
        slots=args.slots,
        queue_max=args.queue,
        context_tokens_max=args.context,
        tokens_per_step=args.instant,
        answer_tokens=args.answer_tokens,
        mishap=args.mishap,
        poison_id=args.poison_id,
    )
    if args.model is not None:
        vocabulary, vocab_size = plain_vocabulary((args.model / "tokenizer.json").read_bytes())
        script = structs.replace(script, vocabulary=vocabulary, vocab_size=vocab_size)
    return ScriptedCore(script)
