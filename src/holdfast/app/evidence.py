"""What ailments are judged by on this site: rules from the settings, memory from /proc, known answers and exhibits from files."""

import contextlib
from pathlib import Path

from holdfast.domain.ailment import Exhibit
from holdfast.domain.event import Emit
from holdfast.domain.ports import Clock
from holdfast.domain.release import Release
from holdfast.domain.settings import Settings
from holdfast.domain.site import Run
from holdfast.fleet.evidence import Evidence, Rules, Sources
from holdfast.host.clock import unix_s
from holdfast.host.memory import resident_mib
from holdfast.policy import canary, wedge
from holdfast.policy.canary import Known
from holdfast.store import answers, evidence, snapshot
from holdfast.store.folder import Folder


def gather(settings: Settings, folder: Folder, clock: Clock, emit: Emit) -> Evidence:
    """The evidence of this site, empty yet. A disk that takes nothing more stops no verdict: what can't be kept is not kept."""

    def resident(name: str) -> float | None:
        run = snapshot.take(folder.run(name), Run)
        return resident_mib(run.pid) if run is not None else None

    def recorded(release: Release) -> Known | None:
        model = settings.smaller if release.model == settings.smaller.name else settings.model
        written = answers.recorded(Path(model.path), release.engine, settings.replica.dtype)
        return written or answers.agreed(folder.answers, release.digest)

    def agree(release: Release, known: Known) -> None:
        with contextlib.suppress(OSError):
            answers.keep_agreed(folder.answers, release.digest, known)

    def keep(exhibit: Exhibit) -> None:
        with contextlib.suppress(OSError):
            evidence.keep(folder.evidence, exhibit)

    sources = Sources(
        now=clock.now, unix_s=unix_s, emit=emit, resident_mib=resident, recorded=recorded, agree=agree, keep=keep
    )
    return Evidence(rules_of(settings), sources)


def rules_of(settings: Settings) -> Rules:
    """The settings as ailments are judged by."""
    ailing, guard = settings.ailing, settings.guard
    return Rules(
        wedged=wedge.Limits(
            wedged_s=ailing.wedged_s,
            cap_s=ailing.wedged_cap_s,
            prefill_s_per_token=settings.failover.prefill_s_per_token,
        ),
        canaries=canary.Rules(
            every_s=settings.canary.every_s, idle_s=settings.canary.idle_s, idle_every_s=settings.canary.idle_every_s
        ),
        chunk_tokens=settings.replica.prefill_chunk_tokens,
        wrong_max=settings.canary.wrong_max,
        slow_z=ailing.slow_z,
        slow_s=ailing.slow_s,
        replica_mib_max=guard.replica_mib_max,
        gateway_mib_max=guard.gateway_mib_max,
    )
