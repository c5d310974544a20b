"""The settings of a normal bad day: what is let in, for whom, where it goes, what is given up, and how many replicas run.

Apart from the others for their number. Anchors of the defaults are beside the policies that use them.
"""

from typing import Annotated

from msgspec import Meta, Struct

from holdfast.domain.settings_kinds import Seconds, Share


class Admission(Struct, frozen=True, forbid_unknown_fields=True):
    """What is let in. Refusing early is cheap; refusing late has already cost a replica's time."""

    requests_per_s: Annotated[
        float, Meta(gt=0, description="Requests a second that the site lets in, all its gateway workers together.")
    ] = 2000.0
    burst: Annotated[float, Meta(ge=1, description="Requests that may come at once above that rate.")] = 2000.0
    queue_max: Annotated[int, Meta(ge=0, description="Requests that may wait in one worker for a replica.")] = 1024
    queue_tokens_max: Annotated[
        int,
        Meta(ge=0, description="Tokens of work that may wait in one worker: prompts, and twice the expected answers."),
    ] = 4_000_000
    queue_bytes_max: Annotated[int, Meta(ge=0, description="Bytes of request bodies that may wait in one worker.")] = (
        64 * 1024 * 1024
    )
    queue_wait_s: Annotated[Seconds, Meta(description="A request that waited so many seconds is refused.")] = 30.0
    first_token_s: Annotated[
        Seconds,
        Meta(
            description="The first token should come within so many seconds. A queue that stays non-empty for half of it "
            "is cut to a wait of a fortieth of it (CoDel)."
        ),
    ] = 2.0
    headroom: Annotated[
        Share,
        Meta(
            description="Share of the slots and cache that is kept free at most, from tenants that use more than their share "
            "for those that use less, while these find no room. 0: none."
        ),
    ] = 0.04
    expected_tokens: Annotated[
        int, Meta(ge=1, description="Tokens that an answer is taken to have until a tenant's own answers are known.")
    ] = 256
    throttle_factor: Annotated[
        float,
        Meta(
            ge=1,
            description="A client that sends more than so many times what is accepted of it is refused part of it at once.",
        ),
    ] = 2.0
    throttle_s: Annotated[Seconds, Meta(description="Over how many seconds that is counted.")] = 120.0
    shared_url: Annotated[
        str,
        Meta(
            description="Address of a Redis or Valkey, `redis://host:6379/0`, through which several machines share rates and "
            "quotas. Empty: this machine is alone. While it can't be reached each machine keeps to its share."
        ),
    ] = ""


class Tenant(Struct, frozen=True, forbid_unknown_fields=True):
    """One tenant: `[tenants.acme]`. Whoever sends one of its keys is it; the key of [gateway], or none, is `default`."""

    keys: Annotated[tuple[str, ...], Meta(description="API keys that mean this tenant. `default` needs none.")] = ()
    weight: Annotated[
        float, Meta(gt=0, le=1000, description="Its share of the work while others wait, relative to theirs.")
    ] = 1.0
    priority: Annotated[
        int,
        Meta(
            ge=-10,
            le=10,
            description="Its band: higher ones go first, those below 0 are refused first. A request may only lower it.",
        ),
    ] = 0
    requests_per_s: Annotated[
        float, Meta(ge=0, description="Requests a second that are let in for it. 0: only the site's rate counts.")
    ] = 0.0
    burst: Annotated[float, Meta(ge=1, description="Requests that may come at once above that rate.")] = 10.0
    tokens_per_min: Annotated[
        float,
        Meta(
            ge=0,
            description="Tokens a minute, prompts and answers, reserved at admission and settled at the end. 0: no quota.",
        ),
    ] = 0.0
    tokens_burst: Annotated[
        float, Meta(ge=0, description="Tokens that may be used at once above that quota. 0: those of one minute.")
    ] = 0.0
    concurrency: Annotated[
        int, Meta(ge=0, description="Answers of it that may be generated at the same time. 0: no limit.")
    ] = 0
    memory_min: Annotated[
        Share, Meta(description="Share of the replicas' slots and cache that is kept free for it, whoever else comes.")
    ] = 0.0
    memory_max: Annotated[
        Share, Meta(description="Share of the replicas' slots and cache that it may take at most.")
    ] = 1.0


class Balance(Struct, frozen=True, forbid_unknown_fields=True):
    """Which replica gets an answer."""

    affinity: Annotated[
        bool, Meta(description="Whether prompts that begin alike go to the same replica, for its cache.")
    ] = True
    affinity_bound: Annotated[
        float, Meta(ge=1, le=10, description="Unless that replica has more than so many times the average load.")
    ] = 1.25
    affinity_blocks: Annotated[
        int, Meta(ge=0, description="Blocks of 64 prompt tokens whose replica one worker remembers; the oldest leave.")
    ] = 65536
    slow_start_s: Annotated[
        float, Meta(ge=0, le=3600, description="A fresh replica's share of new work grows to full in so many seconds.")
    ] = 10.0


class Degradation(Struct, frozen=True, forbid_unknown_fields=True):
    """The ladder: what is given up, rung by rung, while the site has too much to do or fails too often."""

    on: Annotated[bool, Meta(description="Whether the site degrades by itself.")] = True
    errors_share: Annotated[
        float, Meta(gt=0, le=1, description="Share of answers that end in an error of ours above which it degrades.")
    ] = 0.05
    window_s: Annotated[Seconds, Meta(description="Over how many seconds errors are counted.")] = 10.0
    volume_min: Annotated[int, Meta(ge=1, description="Fewer answers than this within the window prove nothing.")] = 20
    step_s: Annotated[
        Seconds, Meta(description="Pressure must last so many seconds before the next rung is taken.")
    ] = 2.0
    calm_s: Annotated[Seconds, Meta(description="Calm must last so many seconds before one rung is given back.")] = 5.0
    max_tokens: Annotated[int, Meta(ge=1, description="Rung 1: the longest answer, in tokens.")] = 512
    thinking_tokens: Annotated[int, Meta(ge=1, description="Rung 2: the longest reasoning, in tokens.")] = 256


class Smaller(Struct, frozen=True, forbid_unknown_fields=True):
    """A smaller model that answers while the ladder is at that rung (4). Its replicas have settings and engine of [replica]."""

    path: Annotated[str, Meta(description="Its folder in Hugging Face format. Empty: the rung is left out.")] = ""
    name: Annotated[str, Meta(description="Its name in answers. Empty: the folder's name.")] = ""
    count: Annotated[int, Meta(ge=1, le=64, description="How many replicas of it run.")] = 1


class Scaling(Struct, frozen=True, forbid_unknown_fields=True):
    """How many replicas run, when that follows the load; [replica] count is then what it begins with."""

    on: Annotated[
        bool, Meta(description="Whether the number of replicas follows the load; without it [replica] count holds.")
    ] = False
    min: Annotated[int, Meta(ge=1, le=64, description="Fewest replicas that serve.")] = 2
    max: Annotated[int, Meta(ge=1, le=64, description="Most replicas that serve.")] = 10
    warm: Annotated[
        int,
        Meta(
            ge=0, le=64, description="Replicas beyond those that are loaded but serve only when one is lost or needed."
        ),
    ] = 0
    wait_s: Annotated[
        Seconds, Meta(description="More replicas are wanted when the queue's wait stays above so many seconds.")
    ] = 0.5
    use_high: Annotated[Share, Meta(description="Likewise when slots or cache stay used above this share.")] = 0.8
    use_low: Annotated[
        Share, Meta(description="Fewer are wanted when, without one of them, use would stay below this share.")
    ] = 0.5
    out_after_s: Annotated[Seconds, Meta(description="Seconds that the want for more must last.")] = 5.0
    in_after_s: Annotated[Seconds, Meta(description="Seconds that the want for fewer must last.")] = 120.0
