"""holdfast gguf: write a DeepSeek-V2 or -V3 model folder as a GGUF file, which llama.cpp can serve."""

import argparse
import sys
from pathlib import Path

from holdfast.pearl.gguf import KINDS, write_gguf
from holdfast.pearl.options import BadModel


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb to the command line."""
    parser = subparsers.add_parser("gguf", help="write a model folder as GGUF", description=__doc__)
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL_DIR", help="a model folder in Hugging Face format")
    add("file", type=Path, nargs="?", metavar="FILE", help="where to (default: MODEL_DIR/NAME.gguf)")
    add(
        "--type",
        choices=KINDS,
        default=KINDS[0],
        help="of the matrices; f32 gives the embedded engine's tokens on a CPU",
    )


def run(args: argparse.Namespace) -> int:
    """0: written. 1: it can't be; the sentence says why."""
    if not args.model.is_dir():
        return _refused(f"there is no folder at {args.model}: name a model folder in Hugging Face format.")
    path = args.file or args.model / f"{args.model.resolve().name}.gguf"
    try:
        size = write_gguf(args.model, path, args.type)
    except BadModel as error:
        return _refused(str(error))
    except OSError as error:
        return _refused(f"{error.filename or path} can't be read or written: {error.strerror or error}.")
    print(f'{path}: {size / 1e6:.1f} MB. Serve its folder with [replica] engine = "llamacpp".')
    return 0


def _refused(sentence: str) -> int:
    print(f"holdfast gguf: {sentence}", file=sys.stderr)
    return 1
