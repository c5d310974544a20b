"""What is wanted of one engine process, before anybody has said in which words its program is told so.

Everything that a launch depends on is in it, so that the same plan always gives the same command: the machine is looked at by
whoever makes the plan, never by a profile.
"""

from msgspec import Struct

from holdfast.domain.engine import EngineKind
from holdfast.policy.model_facts import ModelFacts
from holdfast.policy.triton_launch import TritonInstall

LOOPBACK = "127.0.0.1"


class Gpu(Struct, frozen=True, kw_only=True):
    """One GPU of the machine. `capability` is CUDA's, such as (9, 0); (0, 0): not known."""

    name: str
    memory_bytes: int
    capability: tuple[int, int] = (0, 0)


class LaunchPlan(Struct, frozen=True, kw_only=True):
    """One engine, to be run on this machine.

    `gpus`: indices as CUDA counts them, none for CPU. `seen`: what these are, in the same order; None: not known. `ports`: free
    ones, the first for requests; Triton takes three. `room`: the engine's own folder, where its files are written and where it
    runs. `inherited`: our own environment, of which few variables pass. `package`: where holdfast's modules lie.
    `triton`: what was found at `program`, and `python_paths`: where the Python inside it finds holdfast and torch.
    """

    kind: EngineKind
    program: str
    folder: str  # of the model
    served_as: str
    facts: ModelFacts
    ports: tuple[int, ...] = (0, 0, 0)
    key: str = ""
    gpus: tuple[int, ...] = ()
    seen: tuple[Gpu, ...] | None = None
    insist: bool = False  # the site has said how many GPUs: what should not fit is tried
    slots: int = 32
    context_tokens_max: int = 2048
    queue_max: int = 128
    dtype: str = "fp32"
    threads: int = 1
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    start_s: float = 0.0
    version: tuple[int, ...] = ()  # of the engine; (): not known
    room: str = ""
    package: str = ""
    inherited: tuple[tuple[str, str], ...] = ()
    triton: TritonInstall | None = None
    python_paths: tuple[str, ...] = ()

    @property
    def port(self) -> int:
        """Where requests go."""
        return self.ports[0]

    @property
    def context(self) -> int:
        """Tokens of prompt and answer: as set, or as many as the model was made for."""
        own = self.facts.context_tokens
        return min(self.context_tokens_max, own) if own else self.context_tokens_max

    def older_than(self, *version: int) -> bool:
        """Whether the engine's version is known, and below this one."""
        return bool(self.version) and self.version < version


def version_of(text: str) -> tuple[int, ...]:
    """`0.32.0+cpu` as (0, 32, 0); () where there is no number."""
    numbers: list[int] = []
    for part in text.strip().lstrip("vb").split("+")[0].split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers)
