"""Renewal: the supervisor becomes a new one without ceasing to be the parent of its children.

It replaces its own process image by exec, with the command line that it was started with. Pid, lock, listening socket and
children stay; code and settings are read afresh. Signals that arrive meanwhile wait until the new image can hear them.
"""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass

from holdfast.domain.settings import BadSettings, Settings
from holdfast.host.doorway import LISTEN_FD, Doorway
from holdfast.store.lock import SiteLock

LOCK_FD = "HOLDFAST_LOCK_FD"
HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def hold_signals() -> None:
    """Let signals wait. The mask outlives an exec, so none is lost and none kills us on the way."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)


def hear_signals() -> None:
    """Let them in."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)


def handed_on(variable: str) -> str:
    """What an earlier image of this process left for us in the environment. It is taken out: children must not find it."""
    return os.environ.pop(variable, "")


@dataclass(frozen=True)
class Renewal:
    """`reload` reads the settings as they are now, and raises BadSettings: a site is not upgraded into a refusal to start."""

    lock: SiteLock
    doorway: Doorway
    reload: Callable[[], Settings]

    def __call__(self) -> None:
        """Become a new supervisor. Does not return. Raises OSError: nothing has changed."""
        try:
            self.reload()
        except BadSettings as error:
            raise OSError(f"the supervisor stays as it is: {error}") from error
        hold_signals()
        try:
            os.environ[LOCK_FD], os.environ[LISTEN_FD] = self.lock.hand_on(), self.doorway.hand_on()
            sys.stdout.flush()
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
        finally:  # exec does not come back: we are here because it could not be done
            handed_on(LOCK_FD)
            handed_on(LISTEN_FD)
            self.lock.keep()
            self.doorway.keep()
            hear_signals()
