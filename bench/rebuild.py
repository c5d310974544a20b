"""Is what a parser says a function of the ids alone? Random answers, cut after every token, in every dialect.

    python -m bench.rebuild [--transcripts 10000] [--seed 1]

Each answer is drawn from what parsers fear: marks in odd places, half calls, broken UTF-8, tags inside values, text that looks
like marks. It is read token by token; then, for each k, a fresh parser is fed the first k ids and must say, token by token, what
the unbroken one said of the rest; then in random portions. Passed: no difference. The last line is JSON.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from time import perf_counter

from rich.console import Console
from rich.table import Table
from tests.dialect.generations import GENERATIONS, folder
from tests.dialect.transcripts import Drawer, joined, prompts, violations

from holdfast.dialect.open import open_dialect
from holdfast.dialect.vocabulary import Vocabulary


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transcripts", type=int, default=10_000, help="in all")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    table = Table("dialect", "answers", "tokens", "cuts", "with calls", "with reasoning", "broken", "seconds")
    each, rows, broken = -(-args.transcripts // len(GENERATIONS)), [], 0
    with tempfile.TemporaryDirectory() as place:
        for name in GENERATIONS:
            made, begun_s, seen = folder(Path(place), name), perf_counter(), Counter[str]()
            dialect = open_dialect(made)
            drawer, begun = Drawer(name, dialect, Vocabulary(made)), prompts(dialect)
            for k in range(each):
                seed = args.seed * 1_000_000 + k
                chance = Random(seed)
                ids, prompt = drawer.answer(chance), begun[k % len(begun)]
                found = violations(dialect, prompt, ids, chance)
                if found:
                    print(f"{name} seed={seed}: {'; '.join(found)}", file=sys.stderr)
                reader = dialect.parser(prompt)
                reasoning, _, calls, _ = joined([reader.feed(ids), reader.end()])
                seen.update(answers=1, tokens=len(ids), cuts=len(ids) + 1, broken=bool(found))
                seen.update(calls=bool(calls), reasoning=bool(reasoning))
            took_s = perf_counter() - begun_s
            broken += seen["broken"]
            columns = ("answers", "tokens", "cuts", "calls", "reasoning", "broken")
            table.add_row(name, *(f"{seen[column]:,}" for column in columns), f"{took_s:.1f}")
            rows.append({"dialect": name, **{column: seen[column] for column in columns}})
    Console().print(table)
    print(json.dumps({"bench": "rebuild", "seed": args.seed, "passed": not broken, "dialects": rows}))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
