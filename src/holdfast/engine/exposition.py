"""What an engine counts, read from its Prometheus text: {name: sum of its samples}.

Labels tell models, ranks and buckets apart; one replica serves one model, and what we ask of its counters (do they grow, how
many run, how many wait) is asked of all its ranks together. `labels` reads one sample's labels where an engine tells facts
in them, as vLLM's cache_config_info does.
"""

import math
import re

_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def parse(text: bytes) -> dict[str, float]:
    """Sums by name. Lines that can't be read are skipped, and so is NaN: what was not counted is not there."""
    sums: dict[str, float] = {}
    for line in text.decode("utf-8", "replace").splitlines():
        if not line or line.startswith("#"):
            continue
        name, _, rest = line.partition("{")
        if rest:
            rest = rest.rpartition("}")[2]
        else:
            name, _, rest = line.partition(" ")
        words = rest.split()
        try:
            value = float(words[0])
        except (IndexError, ValueError):
            continue
        if not math.isnan(value):
            sums[name] = sums.get(name, 0.0) + value
    return sums


def labels(text: bytes, name: str) -> dict[str, str]:
    """The labels of the first sample of that name; empty where there is none."""
    for line in text.decode("utf-8", "replace").splitlines():
        if line.startswith(name + "{"):
            return dict(_LABEL.findall(line[len(name) :]))
    return {}
