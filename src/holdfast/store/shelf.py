"""The shelf: memory-backed files in one folder, shared by the workers of a machine.

A sheet is a file on tmpfs, mapped into its writer. Writing is a copy in memory, with no system call and no buffer of ours, so
what was written is there for others however the writer ends. Its pages are paid for when it is made (posix_fallocate): a full
tmpfs shows then, as OSError, and never as a signal in the middle of an answer. Its writer holds a lock on it that the kernel
lets go when the process ends. Claims are locks of the same kind: a dead holder's claim is nobody's.
"""

import fcntl
import hashlib
import mmap
import os
import stat
from contextlib import suppress
from pathlib import Path

CLAIMS = ".claims"
SCRATCH = ".new-"
SITE = ".site"


class FileSheet:
    """The Sheet port over one file. The writer's own holds the lock as long as it is open."""

    def __init__(self, fd: int, size: int, ours: bool) -> None:
        self._fd, self._ours = fd, ours
        self._map = mmap.mmap(fd, size, prot=mmap.PROT_READ | (mmap.PROT_WRITE if ours else 0))
        self._buffer = memoryview(self._map)

    @property
    def buffer(self) -> memoryview:
        return self._buffer

    def held(self) -> bool:
        if self._ours:
            return True
        try:
            fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        return False

    def close(self) -> None:
        """Unmap, and let go of the lock. A slice that somebody still holds keeps the memory, not the lock."""
        if self._fd < 0:
            return
        if self._ours:
            fcntl.flock(self._fd, fcntl.LOCK_UN)  # the mapping holds a copy of the descriptor, and with it the lock
        with suppress(BufferError):
            self._buffer.release()
            self._map.close()
        os.close(self._fd)
        self._fd = -1


class FileShelf:
    """The Shelf port over a folder that only we may look into.

    `site` is the state folder that it belongs to. Its path is kept beside the sheets, so that what a site left in memory goes
    with the next start of any other once its state folder is gone.
    """

    def __init__(self, folder: Path, site: Path | None = None) -> None:
        self._folder, self._site = folder, site
        self._claimed: dict[str, int] = {}
        self._looked_after = False

    def create(self, name: str, size: int) -> FileSheet:
        """A new sheet. It gets its name once it is locked and paid for, so that nobody sees it ownerless."""
        self._look_after()
        scratch = self._folder / f"{SCRATCH}{name}"
        scratch.unlink(missing_ok=True)
        fd = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.posix_fallocate(fd, 0, size)
            os.link(scratch, self._folder / name)
            return FileSheet(fd, size, ours=True)
        except OSError:
            os.close(fd)
            raise
        finally:
            scratch.unlink(missing_ok=True)

    def open(self, name: str) -> FileSheet | None:
        try:
            fd = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            return FileSheet(fd, os.fstat(fd).st_size, ours=False)
        except (OSError, ValueError):  # ValueError: an empty file
            os.close(fd)
            return None

    def names(self) -> list[str]:
        try:
            with os.scandir(self._folder) as entries:
                return [entry.name for entry in entries if not entry.name.startswith(".")]
        except OSError:
            return []

    def remove(self, name: str) -> None:
        """Drop a sheet, or let go of a claim of ours."""
        fd = self._claimed.pop(name, None)
        path = self._folder / name if fd is None else self._folder / CLAIMS / name
        with suppress(OSError):
            path.unlink(missing_ok=True)
        if fd is not None:
            os.close(fd)

    def claim(self, name: str) -> bool:
        """Raises OSError."""
        if name in self._claimed:
            return False
        self._look_after()
        path = self._folder / CLAIMS / name
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_still(path, fd):
                    self._claimed[name] = fd
                    return True
            except BlockingIOError:
                os.close(fd)
                return False
            os.close(fd)  # its holder removed it between our opening and our locking: ask again

    def dissolve(self) -> bool:
        """Remove the folder, unless a sheet in it is held by a living process. Returns whether it is gone."""
        for name in self.names():
            sheet = self.open(name)
            if sheet is not None:
                held = sheet.held()
                sheet.close()
                if held:
                    return False
        for folder in (self._folder / CLAIMS, self._folder):
            with suppress(OSError):
                for entry in list(folder.iterdir()):
                    if entry.is_file():
                        entry.unlink(missing_ok=True)
                folder.rmdir()
        return not self._folder.exists()

    def _look_after(self) -> None:
        """Make the folder if it is missing, refuse one that others could write to, drop what dead workers claimed."""
        claims = self._folder / CLAIMS
        if self._looked_after and claims.is_dir():
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self._folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise PermissionError(f"{self._folder} is not a folder of ours alone")
        claims.mkdir(mode=0o700, exist_ok=True)
        if self._site is not None:
            (self._folder / SITE).write_bytes(os.fsencode(self._site))
            _sweep_orphans(self._folder)
        for left in list(claims.iterdir()):
            _drop_if_free(left)
        self._looked_after = True


def shelf_folder(chosen: str, root: Path) -> Path:
    """Where the journal of the site with this state folder lies: the chosen folder, else one of its own in memory."""
    if chosen:
        return Path(chosen).expanduser().absolute()
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:12]
    return Path("/dev/shm") / f"holdfast-{os.getuid()}-{digest}"


def _sweep_orphans(ours: Path) -> None:
    """Remove the folders beside ours whose site's state folder is gone and that nobody holds."""
    prefix = ours.name.rpartition("-")[0]
    for folder in ours.parent.glob(f"{prefix}-*"):
        try:
            site = Path(os.fsdecode((folder / SITE).read_bytes()))
        except OSError:
            continue
        if folder != ours and not site.exists():
            FileShelf(folder).dissolve()


def _drop_if_free(path: Path) -> None:
    """Remove a claim that nobody holds; who opened it meanwhile finds that it is gone and asks again."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return
    finally:
        os.close(fd)


def _is_still(path: Path, fd: int) -> bool:
    """Whether the file at this path is the one that we have open."""
    try:
        return path.stat().st_ino == os.fstat(fd).st_ino
    except FileNotFoundError:
        return False
