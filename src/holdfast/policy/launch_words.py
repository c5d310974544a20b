"""A command line that grows word by word, each with its sentence, and the environment beside it.

An engine inherits nothing but what is named here: a variable forgotten in somebody's shell must not decide how a site serves,
and proxies, tokens and debug switches least of all.
"""

from collections.abc import Mapping

from holdfast.domain.engine_words import name_of
from holdfast.policy.launch_plan import LaunchPlan

PASSED = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "ROCM_PATH",
          "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR")  # fmt: skip
Said = list[tuple[str, str]]


class Words:
    """One command line in the making. `theirs` are the site's own words: one of ours that they say too is left out."""

    def __init__(self, plan: LaunchPlan, same: Mapping[str, str]) -> None:
        self._same = same
        self._site = plan.args
        self._theirs = {self._named(word) for word in plan.args if word.startswith("-")}
        self.argv: list[str] = [plan.program]
        self.why: Said = [(plan.program, "[engine] program")]

    def _named(self, word: str) -> str:
        """A word's name, short and other forms told by their long one."""
        name = name_of(word)
        return self._same.get(name, name)

    def says(self, flag: str) -> bool:
        """Whether the site says this one itself."""
        return self._named(flag) in self._theirs

    def add(self, why: str, *words: str) -> None:
        """Add words that belong together: a flag and its value, or a whole beginning."""
        if not self.says(words[0]):
            self.argv += words
            self.why.append((" ".join(words), why))

    def end(self) -> None:
        """The site's own words come last."""
        self.argv += self._site
        if self._site:
            self.why.append((" ".join(self._site), "[engine] args"))


class Variables:
    """The environment in the making."""

    def __init__(self, plan: LaunchPlan) -> None:
        self._plan = plan
        self._found = {name: value for name, value in plan.inherited if name in PASSED}
        self.why: Said = []
        self.set("HF_HUB_OFFLINE", "1", "it must not ask the network for models or their code")
        self.set("TRANSFORMERS_OFFLINE", "1", "likewise")
        self.set("DO_NOT_TRACK", "1", "it tells nobody how it is used")
        self.set("PYTHONUNBUFFERED", "1", "its log comes line by line, not when a buffer is full")
        pinned = ",".join(str(one) for one in plan.gpus)
        self.set("CUDA_VISIBLE_DEVICES", pinned, "the GPUs of this replica, and no others" if pinned else "no GPU")
        if plan.gpus:
            self.set("CUDA_DEVICE_ORDER", "PCI_BUS_ID", "GPUs are counted as nvidia-smi counts them")

    def set(self, name: str, value: str, why: str) -> None:
        """One variable with its sentence."""
        self._found[name] = value
        self.why.append((f"{name}={value}", why))

    def all(self) -> tuple[tuple[str, str], ...]:
        """The whole environment, the site's own variables last."""
        for one in self._plan.env:
            name, _, value = one.partition("=")
            self.set(name, value, "[engine] env")
        return tuple(sorted(self._found.items()))
