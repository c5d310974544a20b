"""What a grammar costs: in the engine's loop, and alone at the size of DeepSeek's vocabulary.

    python bench/structured.py [MODEL_DIR] [--rounds 5]

First tokens a second of the processor's time in the embedded engine at 1, 8 and 32 streams: without a grammar, with one that
forbids almost nothing, and with a JSON schema, the same number of tokens each, medians over rounds in which the three take turns.
Then microseconds to compile, to mask once and to go on by a token, on the model's vocabulary and on a made-up one of 129,280
pieces. All times are the process's own, so that a busy machine changes little. Prints a table and ends with one JSON line.
"""

import argparse
import json
import random
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import torch
from prompts import random_prompts
from tokenizers import Tokenizer

from holdfast.domain.ports import Core, Work
from holdfast.domain.request import Sampling
from holdfast.pearl.constraint import Grammars
from holdfast.pearl.open import open_core
from holdfast.pearl.options import CoreOptions

SHIPPED = Path(__file__).parent.parent / "src" / "holdfast" / "shipped" / "pearl"
STREAMS = (1, 8, 32)
NEW_TOKENS = 64
LARGE_VOCAB = 129_280
EOS = 1
WORDS = Tokenizer.from_file(str(SHIPPED / "tokenizer.json"))
ITEM = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"enum": ["a", "bc"]}},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
SCHEMA = "start: %json " + json.dumps({"type": "array", "items": ITEM, "minItems": 1000})  # longer than any answer here
GRAMMARS = {"no grammar": "", "free text": "start: /(.|\n)*/", "JSON schema": SCHEMA}


def speed(core: Core, asked: list[list[int]], grammar: str) -> float:
    """Tokens a second, all prompts at once."""
    began, made, left = process_time(), 0, len(asked)
    for ticket, prompt in enumerate(asked):
        sampling = Sampling(temperature=1.0, grammar=grammar)
        core.submit(
            ticket,
            Work(
                prompt_ids=prompt, delivered_ids=[], sampling=sampling, max_tokens=NEW_TOKENS, seed=ticket, stop_ids=()
            ),
        )
    while left:
        for produced in core.step():
            assert not produced.fault, produced.fault
            made += len(produced.ids)
            left -= produced.finish is not None
    assert made == NEW_TOKENS * len(asked)
    return made / (process_time() - began)


def large_folder(folder: Path) -> Path:
    """A tokenizer.json of LARGE_VOCAB pieces: bytes, and random strings of letters with and without a space before them."""
    spec: dict[str, Any] = json.loads((SHIPPED / "tokenizer.json").read_text("utf-8"))
    marks, words = spec["added_tokens"], spec["model"]["vocab"]
    chance, pieces = random.Random(1), dict.fromkeys(sorted(words, key=words.__getitem__))
    while len(pieces) + len(marks) < LARGE_VOCAB:
        word = "".join(chance.choice("etaoinshrdlucmfwypvbgkjqxz") for _ in range(chance.randint(2, 9)))
        pieces[("Ġ" if chance.random() < 0.5 else "") + word] = None
    taken = {mark["content"] for mark in marks}
    spec["model"]["vocab"] = {mark["content"]: mark["id"] for mark in marks}
    plain = [piece for piece in pieces if piece not in taken][: LARGE_VOCAB - len(marks)]
    spec["model"]["vocab"] |= {piece: len(marks) + n for n, piece in enumerate(plain)}
    spec["model"]["merges"] = []
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    return folder


def masks(folder: Path, vocab_size: int) -> dict[str, float]:
    """Microseconds for each act, medians over a random answer under SCHEMA; the worst mask too."""
    began = process_time()
    grammars = Grammars.open(folder, vocab_size, (EOS,))
    opened = process_time() - began
    assert not grammars.missing, grammars.missing
    began = process_time()
    grammars.compiled(SCHEMA).result()
    compiled = process_time() - began
    chance, told, steps = random.Random(2), [], []
    for _ in range(5):
        state, ids = grammars.begin(SCHEMA, [], frozenset((EOS,))), []
        for _ in range(200):
            row = torch.zeros(vocab_size)
            began = process_time()
            state.apply(row)
            told.append(process_time() - began)
            token = chance.choice(row.isfinite().nonzero()[:, 0].tolist())
            began = process_time()
            state.said(token)
            steps.append(process_time() - began)
            ids.append(token)
    began = process_time()
    grammars.begin(SCHEMA, ids, frozenset((EOS,)))
    led = process_time() - began
    acts = {"open": opened, "compile": compiled, "mask": median(told), "worst mask": max(told), "step": median(steps)}
    return {name: round(seconds * 1e6, 1) for name, seconds in (acts | {"lead through 200 tokens": led}).items()}


def dear() -> dict[str, float]:
    """Milliseconds to compile what is as dear as dialect/schema.py lets pass, and the worst mask of a pattern that wears out."""
    text, grammars = {"type": "string"}, Grammars.open(SHIPPED, 1280, (EOS,))
    ways = [{"anyOf": [{"type": "object", "properties": {f"{name}{i}": text}} for i in range(4)]} for name in "abcd"]
    schemas = {
        "pairs": {"allOf": ways},
        "wide": {"type": "object", "properties": {f"property{i}": text for i in range(256)}},
        "multiples": {"type": "integer", "multipleOf": 4093},
        "pattern": {"type": "string", "pattern": "(.*a.{30}b.{30})*"},
    }
    found = {}
    for name, schema in schemas.items():
        began = process_time()
        grammars.compiled("start: %json " + json.dumps(schema)).result()
        found[f"compile {name}"] = process_time() - began
    many = [{"type": "string", "pattern": f"^(\\p{{L}}|\\d|x{i}){{1,{100 + i}}}$"} for i in range(800)]
    full = "\n".join(
        f"t{k}: %json " + json.dumps({"type": "object", "properties": {f"p{i}": many[k * 160 + i] for i in range(160)}})
        for k in range(5)
    )
    began = process_time()
    grammars.compiled(f"start: {' | '.join(f't{k}' for k in range(5))}\n{full}").result()
    found["compile 50 KB of patterns"] = process_time() - began
    chance, worst = random.Random(3), 0.0
    letters = [token for token in range(1280) if WORDS.id_to_token(token) in ("a", "b")]
    for _ in range(8):
        state = grammars.begin("start: %json " + json.dumps(schemas["pattern"]), [], frozenset((EOS,)))
        state.said(next(token for token in range(1280) if WORDS.id_to_token(token) == chr(34)))
        while not state.fault:
            began = process_time()
            state.apply(torch.zeros(1280))
            worst = max(worst, process_time() - began)
            state.said(chance.choice(letters))
    return {name: round(seconds * 1e3, 1) for name, seconds in (found | {"worst mask": worst}).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", nargs="?", type=Path, default=SHIPPED)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    core = open_core(options.model_dir, CoreOptions(slots=32, context_tokens_max=256))
    found: dict[str, Any] = {"tokens_per_s": {}}
    for streams in STREAMS:
        asked = random_prompts(options.model_dir, streams, 34)
        rounds = [
            {name: speed(core, asked, text) for name, text in GRAMMARS.items()} for _ in range(options.rounds + 1)
        ]
        row = {name: round(median(one[name] for one in rounds[1:])) for name in GRAMMARS}
        found["tokens_per_s"][str(streams)] = row
        print(f"{streams:3} streams", "  ".join(f"{name} {value:6}" for name, value in row.items()), "tokens/s")
    with TemporaryDirectory() as folder:
        own = json.loads((options.model_dir / "config.json").read_text())["vocab_size"]
        for name, place, size in (
            ("model", options.model_dir, own),
            ("large", large_folder(Path(folder)), LARGE_VOCAB),
        ):
            found[f"{name}_us"] = row = masks(place, size)
            print(f"{name:6}", "  ".join(f"{act} {value:g}" for act, value in row.items()), "us")
    found["dear_ms"] = row = dear()
    print("dear  ", "  ".join(f"{act} {value:g}" for act, value in row.items()), "ms")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
