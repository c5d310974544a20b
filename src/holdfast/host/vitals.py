"""Vital signs of another process, for one microsecond each: does it still have its memory?

A process that is killed gives up its address space first and its sockets last: with a gigabyte in between, the kernel needs
60 to 160 ms, and so long a peer waits for the end of the connection. But from the first moment /proc/PID/statm says "0 0 0":
measured 0.2 ms after the signal, against 55 to 76 ms for the socket (900 MB, Linux 6.18). The file is opened once, which also
ties it to this very process: a pid that comes again is another file.
"""

import os


class Vitals:
    """Watches one process. Raises OSError at once when there is none of that pid."""

    def __init__(self, pid: int) -> None:
        self._fd = os.open(f"/proc/{pid}/statm", os.O_RDONLY)

    def dying(self) -> bool:
        """Whether it has given up its memory, or is gone."""
        try:
            return os.pread(self._fd, 2, 0) in (b"0 ", b"")
        except OSError:
            return True

    def close(self) -> None:
        """Look no more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
