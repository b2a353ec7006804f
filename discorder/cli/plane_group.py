"""Reach all processes of `discorder serve --processes N` by their one configuration, each at its own port."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from discorder.cli.plane_client import PlaneClient
from discorder.config import Config
from discorder.errors import ControlPlaneAbsent, DiscorderError, OperatorRefused

LOOK_BEYOND = 4  # ports after that of process 0 that are asked when it does not answer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """What one process answered: ``document``, or why it did not: ``error``. ``name`` is "" for a process that is alone."""

    name: str
    document: bytes
    error: ControlPlaneAbsent | None = None


class _Shard(msgspec.Struct):
    id: int


class _Shards(msgspec.Struct):
    """The field of a status document that says which shards a process has."""

    shards: list[_Shard]


def find_processes(config: Config, url: str | None) -> list[PlaneClient]:
    """Return a client for each process of the control plane of ``config``; with ``url`` for that one alone.

    Raises `ConfigError` like `PlaneClient`, and `ControlPlaneAbsent` if process 0 hangs and no other one answers.
    """
    first = PlaneClient(config, url)
    if url is not None:
        return [first]
    return [first, *(PlaneClient(config, process=number) for number in range(1, _count(config, first)))]


def _count(config: Config, first: PlaneClient) -> int:
    """Return the number of processes, 1 if none says that it is one of several."""
    try:
        return _count_of(first, 0)
    except ControlPlaneAbsent as error:
        for number in range(1, LOOK_BEYOND + 1):
            try:
                if (count := _count_of(PlaneClient(config, process=number), number)) > number:
                    return count
            except DiscorderError:
                continue  # another program, or nothing, is there
        if isinstance(error.__cause__, TimeoutError):
            raise
    except OperatorRefused:
        pass  # another program: the command names it
    return 1


def _count_of(client: PlaneClient, number: int) -> int:
    answer = client.health("/livez", "live")
    count = answer.get("processes")
    return count if isinstance(count, int) and answer.get("process") == number else 1


def names(clients: Sequence[PlaneClient]) -> list[str]:
    """Return how to name each client; "" for one that is alone."""
    return [""] if len(clients) == 1 else [f"process {number}" for number in range(len(clients))]


def ask_all(clients: Sequence[PlaneClient], ask: Callable[[PlaneClient], bytes]) -> list[Answer]:
    """Return what each process answers. Raises what ``ask`` raises except `ControlPlaneAbsent`, and that one if none answers."""
    answers = []
    for name, client in zip(names(clients), clients, strict=True):
        try:
            answers.append(Answer(name, ask(client)))
        except ControlPlaneAbsent as error:
            answers.append(Answer(name, b"", error))
    first = answers[0].error
    if first is not None and all(answer.error is not None for answer in answers):
        raise first
    return answers


def first_answer(clients: Sequence[PlaneClient], ask: Callable[[PlaneClient], T]) -> T:
    """Return the answer of the first process that answers. Raises what ``ask`` raises, `ControlPlaneAbsent` if none answers."""
    for client in clients[:-1]:
        try:
            return ask(client)
        except ControlPlaneAbsent:
            continue
    return ask(clients[-1])


def with_shard(clients: Sequence[PlaneClient], shard: int) -> PlaneClient:
    """Return the client of the process that has ``shard``.

    Raises `OperatorRefused` if no process that answers has it; a process that is alone answers that by itself.
    """
    if len(clients) == 1:
        return clients[0]
    answers = ask_all(clients, PlaneClient.status)
    found: set[int] = set()
    for client, answer in zip(clients, answers, strict=True):
        if answer.error is None:
            ids = {one.id for one in msgspec.json.decode(answer.document, type=_Shards).shards}
            if shard in ids:
                return client
            found |= ids
    absent = "".join(
        f"; {answer.name} does not answer: {answer.error}" for answer in answers if answer.error is not None
    )
    msg = f"no process has a shard {shard}; there are: {', '.join(map(str, sorted(found)))}{absent}"
    raise OperatorRefused(msg)
