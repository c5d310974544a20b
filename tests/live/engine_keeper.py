"""A process that keeps an engine as a replica does: started by test_engine_process.py, which kills it. Says the pids of all."""

import asyncio
import sys
from pathlib import Path

from engine_programs import kept


async def keep(folder: Path, code: str) -> None:
    async with kept(folder, code) as one:
        pids = await one.family()
        one.process.note_members()
        print(*pids, flush=True)
        await one.process.ended.wait()


if __name__ == "__main__":
    asyncio.run(keep(Path(sys.argv[1]), sys.argv[2]))
