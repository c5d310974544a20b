"""A worker of its own: takes from a shared ledger as it is told, one command a line on stdin, one answer a line on stdout."""

import sys
from pathlib import Path

from holdfast.domain.board import Rate
from holdfast.store import ledger


def main(folder: Path, workers: int) -> None:
    """drain ACCOUNT PER_S BURST NOW: take one at a time until refused. sit: hold the lock for rows."""
    own = ledger.FileLedger(folder, None, workers)
    print(own.sharing, flush=True)
    for line in sys.stdin:
        match line.split():
            case ["drain", account, per_s, burst, now]:
                taken = 0
                while own.take(account, 1.0, Rate(float(per_s), float(burst)), float(now)) == 0:
                    taken += 1
                print(taken, flush=True)
            case ["sit"]:
                file = own._file
                print(file is not None and file.lock(ledger._ROWS_LOCK), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
