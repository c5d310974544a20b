"""A disk of half a megabyte that can be filled to the last byte, or be made read-only."""

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path


class SmallDisk:
    """A tmpfs of its own. Raises PermissionError where we may not mount one."""

    def __init__(self, kib: int = 512) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hf"))
        told = self._mount("-t", "tmpfs", "-o", f"size={kib}k,mode=700", "tmpfs")
        if told.returncode != 0:
            self.folder.rmdir()
            raise PermissionError(told.stderr.decode())

    def _mount(self, *words: str) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(["mount", *words, str(self.folder)], capture_output=True, check=False)

    def fill(self) -> None:
        """Not one byte more."""
        with (self.folder / "filler").open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * os.sysconf("SC_PAGE_SIZE"))

    def empty(self) -> None:
        (self.folder / "filler").unlink(missing_ok=True)

    def read_only(self, on: bool) -> bool:
        """False where somebody holds a file open for writing."""
        return self._mount("-o", "remount,ro" if on else "remount,rw").returncode == 0

    def close(self) -> None:
        """The folder is gone, even if somebody still uses it."""
        subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, check=False)
        self.folder.rmdir()
