"""Prompts for the engine's benches: the shipped model's own questions where the folder has them, else random tokens."""

import json
from pathlib import Path
from random import Random

from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer


def prompts(model_dir: Path, count: int, tokens: int = 34) -> list[list[int]]:
    """`count` prompts as token ids. Questions of gate.jsonl through the folder's chat template, or random ones of `tokens`."""
    if (model_dir / "gate.jsonl").exists() and (model_dir / "chat_template.jinja").exists():
        return _asked(model_dir, count)
    return random_prompts(model_dir, count, tokens)


def random_prompts(model_dir: Path, count: int, tokens: int, seed: int = 0) -> list[list[int]]:
    """Uniform token ids, all of one length, the same every time for one seed."""
    vocab = json.loads((model_dir / "config.json").read_text("utf-8"))["vocab_size"]
    rng = Random(seed)
    return [[rng.randrange(8, vocab) for _ in range(tokens)] for _ in range(count)]


def _asked(model_dir: Path, count: int) -> list[list[int]]:
    tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((model_dir / "chat_template.jinja").read_text("utf-8"))
    lines = (model_dir / "gate.jsonl").read_text("utf-8").splitlines()
    stride = max(1, len(lines) // count)
    found = []
    for line in lines[::stride][:count]:
        text = template.render(messages=json.loads(line)["messages"], add_generation_prompt=True, bos_token="<|bos|>")
        found.append(tokenizer.encode(text, add_special_tokens=False).ids)
    return found
