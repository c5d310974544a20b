"""One door to every core that reads a model folder: DeepSeek's own architecture on pearl's loop, others through transformers.

core = open_core(Path("models/pearl"), CoreOptions(slots=16))
"""

from pathlib import Path

import torch

from holdfast.domain.release import Hold, Release
from holdfast.pearl.batch import BatchCore, Brain
from holdfast.pearl.config import FOREIGN_TYPES, model_type_of
from holdfast.pearl.constraint import Grammars
from holdfast.pearl.digest import release_digests
from holdfast.pearl.foreign import ForeignModel
from holdfast.pearl.model import DTYPES, Model
from holdfast.pearl.options import BadDevice, BadModel, CoreOptions, OpenCore
from holdfast.pearl.steadiness import exactness_of

__all__ = ["BadModel", "CoreOptions", "OpenCore", "open_core"]

ENGINE = "embedded"
BUILD = "pearl 1"  # changes whenever the arithmetic or the noise does, and so the tokens


def open_core(model_dir: Path, options: CoreOptions) -> BatchCore:
    """Read the folder, allocate everything and return a core that is ready for its first `submit`.

    Sets torch's number of threads for the whole process.

    Raises:
        BadModel: the folder is not a model that this engine can serve, or an option does not fit it; the sentence says why.
    """
    _check_options(options)
    torch.set_num_threads(options.threads)
    model: Brain
    if model_type_of(model_dir) in FOREIGN_TYPES:
        model = ForeignModel.open(model_dir, options)
        build = f"{BUILD} over transformers {model.version}"
    else:
        model, build = Model.open(model_dir, options), BUILD
    grammars = Grammars.open(model_dir, model.vocab_size, model.eos_ids)
    digests = release_digests(model_dir, build + grammars.build, options)
    release = Release(
        model=options.model or model_dir.resolve().name,
        engine=ENGINE,
        digest=digests.release,
        exactness=exactness_of(model, options),
        version=options.version,
        weights=digests.weights,
        grammar=Hold.NONE if grammars.missing else Hold.LED,
        greedy_across=options.greedy_across,
    )
    return BatchCore(model, release, options, grammars)


def _check_options(options: CoreOptions) -> None:
    least = {
        "slots": 1,
        "context_tokens_max": 2,
        "prefill_chunk_tokens": 1,
        "catch_up": 1,
        "threads": 1,
        "queue_max": 0,
    }
    for name, value in least.items():
        if getattr(options, name) < value:
            raise BadModel(f"{name} is {getattr(options, name)}; it must be at least {value}")
    if options.dtype not in DTYPES:
        raise BadModel(f"dtype is {options.dtype!r}; it must be one of {', '.join(DTYPES)}")
    try:
        torch.zeros(1, device=torch.device(options.device))
    except (RuntimeError, AssertionError) as error:
        raise BadDevice(f"device {options.device!r} can't be used here: {error}") from error
