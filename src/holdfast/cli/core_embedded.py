"""holdfast replica --engine embedded: pearl's core on a model folder. Imported only by processes that serve one."""

import argparse

from holdfast.pearl.open import open_core as open_model
from holdfast.pearl.options import CoreOptions, OpenCore


def open_core(args: argparse.Namespace) -> OpenCore:
    """Read the model. Raises BadModel with a sentence for the user."""
    options = CoreOptions(
        slots=args.slots,
        context_tokens_max=args.context,
        prefill_chunk_tokens=args.chunk,
        queue_max=args.queue,
        dtype=args.dtype,
        threads=args.threads,
        device=args.device,
        model=args.serve_as,
        greedy_across=args.greedy_across,
    )
    return open_model(args.model, options)
