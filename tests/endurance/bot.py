"""A bot as its developer would write it, with a cursor; it notes down every event and every gap before it asks for the next.

``python -m tests.endurance.bot ADDRESS CURSOR NOTES``. Lines: ``event SESSION SEQ`` and ``gap SESSION FROM TO``, TO = - for a
gap whose end is not known.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import discorder


async def main(address: str, cursor: str, notes: Path) -> None:
    with notes.open("ab", buffering=0) as file:
        async with discorder.subscribe(address, cursor=cursor, start="oldest") as items:
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGTERM, lambda: loop.create_task(items.aclose()))
            async for item in items:
                if isinstance(item, discorder.Gap):
                    end = "-" if item.to_seq is None else item.to_seq
                    file.write(f"gap\t{item.session}\t{item.from_seq}\t{end}\n".encode())
                elif item.seq is not None:
                    file.write(f"event\t{item.session}\t{item.seq}\n".encode())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
