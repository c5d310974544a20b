"""What a replica's core may be told from outside: one frozen table, so that the command line can fill it field by field."""

from typing import Protocol

from msgspec import Struct

from holdfast.domain.fault import Fault
from holdfast.domain.ports import Core


class BadModel(Fault):
    """A model folder that can't be served: the sentence says which file, tensor or setting is wrong."""


class BadDevice(BadModel):
    """The device that was asked for is not there, or can't be used."""


class CoreOptions(Struct, frozen=True, kw_only=True):
    """How a core is opened. Everything that bounds memory is here, and is allocated when the core opens, never later."""

    slots: int = 32  # answers that run at once
    context_tokens_max: int = 2048  # prompt + answer of one slot; cut down to the model's own maximum
    prefill_chunk_tokens: int = 256  # prompt tokens that one step may read, all slots together
    catch_up: int = 4  # times as many, while more than one step's worth of moved answers waits to be read again
    queue_max: int = 128  # attempts that may wait for a slot
    dtype: str = "fp32"  # fp32 or bf16: the arithmetic of weights and cache
    threads: int = 1  # torch's threads; 1 beats 2 wherever a server shares the machine
    device: str = "cpu"  # what torch calls it: cpu, cuda, cuda:1
    graphs: bool = False  # replay decode steps as CUDA graphs; on other devices without effect
    model: str = ""  # the name that clients ask for; empty takes the folder's name
    version: str = "0.0.0"  # of the release
    greedy_across: bool = (
        False  # its release says that other engines on the same weights may go on with its greedy answers
    )


class OpenCore(Core, Protocol):
    """A core that also tells how long a prompt and its answer may be together, for the Welcome frame."""

    context_tokens_max: int
