"""A control plane in a process of its own whose store can be crippled: ``python -m tests.faults.crippled API STORE [HOW]``.

HOW is how it starts: ``full`` (no file may grow at all) or ``unprivileged`` (root gives up its right to write everywhere). Then
one word per line on standard input: ``fill``, ``free``, ``report`` (answered by one line of JSON), ``stop``.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import tempfile
from pathlib import Path

from discorder import TrackerRef, diagnose, serve, shutdown

NOBODY = 65534
A_LITTLE = 1024  # bytes: below any page of the store that is to be written


def limit_file_size(size: int | None) -> None:
    """No file of this process may grow beyond ``size`` bytes, as on a disk that is full; None: as before."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if size is None else size, hard))


def config(folder: Path, api: str, store: str) -> Path:
    path = folder / f"{len(store)}.toml"
    path.write_text(
        f'[gateway]\napi = "{api}"\n[log]\nlevel = "warning"\n[session]\nstore = "{store}"\n'
        '[http]\nbind = ""\n[publishers.sink]\nkind = "channel"\n'
    )
    return path


async def warm_up(path: Path) -> None:
    """Live once without a store, so that nothing is left to be imported by a process that may read less."""
    ref = TrackerRef()
    serving = asyncio.ensure_future(serve(tracker_ref=ref, config_file_path=path))
    await shutdown(await ref.ready(timeout=60))
    await serving


async def live(path: Path, how: str) -> None:
    ref = TrackerRef()
    if how == "full":
        limit_file_size(0)
    serving = asyncio.ensure_future(serve(tracker_ref=ref, config_file_path=path))
    tracker = await ref.ready(timeout=60)
    while (word := (await asyncio.to_thread(sys.stdin.readline)).strip()) not in {"stop", ""}:
        if word == "report":
            verdict = diagnose(tracker)
            report = {"healthy": verdict.healthy, "notes": verdict.notes, "tracker": repr(tracker)}
            sys.stdout.write(f"{json.dumps(report)}\n")
            sys.stdout.flush()
        else:
            limit_file_size(A_LITTLE if word == "fill" else None)
    await shutdown(tracker)
    await serving


def main(api: str, store: str, how: str = "") -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if how == "unprivileged":
            asyncio.run(warm_up(config(folder, api, "")))
            folder.chmod(0o755)
        path = config(folder, api, store)
        if how == "unprivileged" and os.geteuid() == 0:
            os.setgroups([])
            os.setresuid(NOBODY, NOBODY, 0)
        asyncio.run(live(path, how))
        os.seteuid(os.getresuid()[2])  # root again, to tidy up


if __name__ == "__main__":
    main(*sys.argv[1:])
