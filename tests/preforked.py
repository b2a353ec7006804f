"""Run commands in forks of a process that has imported all of Discorder, so that a test does not pay for the imports each time.

A fork has its own environment, folder, standard streams and exit, like a process that a user starts.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


# ---------------------------------------------------------------- in the tests


async def run(
    arguments: Sequence[str], *, environment: dict[str, str], folder: Path, seconds: float
) -> tuple[int, bytes, bytes]:
    """Run `discorder ARG…` to its end; return exit code, standard output and standard error. Raises TimeoutError."""
    out, err, told = (os.pipe() for _ in range(3))
    with tempfile.TemporaryFile() as request:
        request.write(json.dumps([*arguments]).encode() + b"\n" + json.dumps([environment, str(folder)]).encode())
        request.flush()
        socket.send_fds(_parent(), [b"fork"], [request.fileno(), out[1], err[1], told[1]])
    for _, write_end in (out, err, told):
        os.close(write_end)
    readers = [await _reader(read_end) for read_end, _ in (out, err, told)]
    try:
        pid = int(await readers[2].readline())
        try:
            async with asyncio.timeout(seconds):
                output, errors, status = await asyncio.gather(*(reader.read() for reader in readers))
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise
    finally:
        for reader in readers:
            reader.close()
    return os.waitstatus_to_exitcode(int(status)), output, errors


class _Pipe(asyncio.StreamReader):
    """Read a pipe without blocking."""

    transport: asyncio.ReadTransport

    def close(self) -> None:
        self.transport.close()


async def _reader(descriptor: int) -> _Pipe:
    pipe = _Pipe()
    pipe.transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(pipe), os.fdopen(descriptor, "rb")
    )
    return pipe


@cache
def _parent() -> socket.socket:
    """Start the process that forks, once for each process of pytest."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.preforked", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# ---------------------------------------------------------------- in the process that forks


def _serve(control: socket.socket) -> None:
    """Fork for each request; return in the fork that is to run the command."""
    from discorder import __path__ as path  # noqa: PLC0415

    for module in pkgutil.walk_packages(path, "discorder."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 16, 4)
        if not message:
            os._exit(0)
        if not os.fork():
            control.close()
            _wait_or_run(*descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)


def _wait_or_run(request: int, out: int, err: int, told: int) -> None:
    """Fork once more: tell the pid and the exit status of the fork that runs the command, and return in it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if pid := os.fork():
        os.close(out)
        os.close(err)
        os.write(told, b"%d\n" % pid)
        os.write(told, b"%d" % os.waitpid(pid, 0)[1])
        os._exit(0)
    os.close(told)
    with open(request, "rb") as file:
        file.seek(0)
        arguments, (environment, folder) = map(json.loads, file)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    # The streams of the parent belong to pytest, whose files can be seeked.
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  # the interpreter closes it
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["discorder", *arguments]


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
    from discorder.cli import main

    main()
