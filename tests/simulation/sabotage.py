"""Breaks the product on purpose, in a copy, and lets fresh seeds look for it: which breaks does the simulation catch?

``python -m tests.simulation.sabotage``: every mutation for up to ``--seconds`` each. A survivor asks for a new rule of a judge.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
COPIED = ("discorder", "statemachine", "transport", "publishers", "etc", "tests")


@dataclass(frozen=True, slots=True)
class Mutation:
    """In ``file``, ``old`` (which must be there) becomes ``new``."""

    name: str
    file: str
    old: str
    new: str


MUTATIONS = (
    Mutation(
        "table: a guard is dropped, op 7 in Ready ends the shard",
        "statemachine/table.py",
        "(Name.RECONNECT, Name.INVALID_RESUMABLE),\n        _UNHEALTHY,\n        (Action.NOTE_PLANNED,),",
        "(Name.RECONNECT, Name.INVALID_RESUMABLE),\n        _STOPPING,\n        (Action.NOTE_PLANNED,),",
    ),
    Mutation(
        "table: demote_host is forgotten",
        "statemachine/machine.py",
        "self._resume_host_demoted = self._dialled",
        "_ = self._dialled",
    ),
    Mutation(
        "machine: resumable is always false",
        "statemachine/machine.py",
        "return self.session is not None\n\n    def planned",
        "return False\n\n    def planned",
    ),
    Mutation(
        "machine: may_open is always true", "statemachine/machine.py", "return self._facts.may_open", "return True"
    ),
    Mutation(
        "deadline lost: Connecting",
        "statemachine/table.py",
        'Deadline(15.0, Keeper.DOCTOR, "Hello")',
        'Deadline(1e9, Keeper.DOCTOR, "Hello")',
    ),
    Mutation("deadline lost: Resuming", "statemachine/table.py", "Deadline(30.0, Keeper", "Deadline(1e9, Keeper"),
    Mutation("deadline lost: READY", "statemachine/table.py", "Deadline(60.0, Keeper", "Deadline(1e9, Keeper"),
    Mutation(
        "doctor: the deadline of a state that was left leaves it blind",
        "discorder/shard/liveness.py",
        "        self._armed = None\n        self._reported = False",
        "        self._reported = False",
    ),
    Mutation("deadline lost: the dial", "statemachine/table.py", "DIAL_SECONDS = 10.0", "DIAL_SECONDS = 1e9"),
    Mutation(
        "driver: stale reports are let through",
        "discorder/shard/driver.py",
        "if generation is not None and generation != self._machine.generation:",
        "if False:",
    ),
    Mutation(
        "checkpoint too early: what was received counts as delivered",
        "publishers/delivery/shard_progress.py",
        "queue.delivered(shard) if queue.required else taken_in",
        "taken_in",
    ),
    Mutation(
        "fan-out: the mark moves although the event was refused",
        "publishers/delivery/lossless.py",
        "            self._shut(shard, position)\n            return\n",
        "            self._shut(shard, position)\n            position.move_to(wanted[taken])\n            return\n",
    ),
    Mutation(
        "fan-out: the duplicate filter is off",
        "publishers/delivery/position.py",
        "return [event for event in events if seq_of(event) > last]",
        "return events",
    ),
    Mutation(
        "fan-out: a shut position takes events",
        "publishers/delivery/lossless.py",
        "if position.shut_at is not None or shard in self._fenced:",
        "if shard in self._fenced:",
    ),
    Mutation(
        "fan-out: what is held is counted as accepted",
        "publishers/delivery/position.py",
        "return self._accepted if self.outstanding else self.mark",
        "return self.mark",
    ),
    Mutation(
        "resume from what was received, not from what was taken in",
        "publishers/delivery/shard_progress.py",
        "min((mark.seq for mark in marks if mark.session == session), default=received)",
        "received",
    ),
    Mutation(
        "ledger: the debit is skipped",
        "discorder/sessions/ledger.py",
        "return replace(self.debited(ticket, now), slots={**self.slots, bucket: slot})",
        "return replace(self, slots={**self.slots, bucket: slot})",
    ),
    Mutation("gate: slots are not spaced", "discorder/sessions/ledger.py", "SPACING = 5.25", "SPACING = 0.5"),
    Mutation(
        "gate: the reserve is spent",
        "discorder/sessions/identify_budget.py",
        "RESERVE_SHARE = 0.1",
        "RESERVE_SHARE = 0.0",
    ),
    Mutation(
        "session: given up at the first refusal",
        "statemachine/session.py",
        "self.refusals >= REFUSALS_TO_GIVE_UP and at - self.first_at >= REFUSING_SECONDS_TO_GIVE_UP",
        "True",
    ),
    Mutation(
        "session: READY is stored later",
        "discorder/plane/session_writer.py",
        "self._before_ready if seq is None else seq, now=True)",
        "self._before_ready if seq is None else seq, now=False)",
    ),
    Mutation(
        "session: the next one is forgotten like the one that was dropped",
        "discorder/plane/session_writer.py",
        "(R.DROPPED, T.SAVED): R.IN_USE,",
        "(R.DROPPED, T.SAVED): R.DROPPED,",
    ),
    Mutation(
        "session: the store is not read",
        "discorder/plane/session_persistence.py",
        "stored = await self._store.load_all()",
        "stored = (await self._store.load_all())[:0]",
    ),
    Mutation(
        "session: a READY that was not delivered is not handed over",
        "discorder/shard/receiver.py",
        "elif last_ready is not None:",
        "elif False:",
    ),
    Mutation(
        "zombie: no ACK is needed",
        "statemachine/heartbeat.py",
        "UNACKNOWLEDGED_INTERVALS = 1.5",
        "UNACKNOWLEDGED_INTERVALS = 1e9",
    ),
    Mutation(
        "zombie: silence is no sign", "statemachine/heartbeat.py", "SILENT_INTERVALS = 0.5", "SILENT_INTERVALS = 1e9"
    ),
    Mutation(
        "back-off: stability resets nothing",
        "statemachine/machine.py",
        "self._ladders = {can_resume: ladder.reset()",
        "_ = {can_resume: ladder.reset()",
    ),
    Mutation(
        "back-off: no floor", "statemachine/backoff.py", "FLOOR = Window(0.25, 0.75)", "FLOOR = Window(0.0, 0.01)"
    ),
    Mutation(
        "back-off: no pause after op 9",
        "statemachine/backoff.py",
        "INVALIDATED = Window(1.0, 2.0)",
        "INVALIDATED = Window(0.0, 0.1)",
    ),
    Mutation(
        "close: a hand-over closes with 1000",
        "discorder/wire.py",
        "RESUMABLE_CLOSE = 4000",
        "RESUMABLE_CLOSE = 1000",
    ),
    Mutation(
        "close: 4004 is tried again",
        "statemachine/close_codes.py",
        '"authentication failed",\n            CloseClass.FATAL',
        '"authentication failed",\n            CloseClass.RESUME',
    ),
    Mutation(
        "heartbeat: the sequence is one behind",
        "discorder/shard/heartbeat.py",
        "seq = self._seq()",
        "seq = (self._seq() or 1) - 1",
    ),
    Mutation(
        "heartbeat: op 1 is not answered",
        "discorder/shard/heartbeat.py",
        "        self._asked = True\n        self._alarm.ring()",
        "        self._alarm.ring()",
    ),
    Mutation(
        "receiver: prev is not cut at a resume",
        "discorder/shard/event_stream.py",
        "            self._complete = False\n        self.seq = seq",
        "        self.seq = seq",
    ),
    Mutation(
        "gap: none is announced when a session is lost",
        "publishers/delivery/shard_progress.py",
        "queue.offer_record(gap_record(one.shard",
        "str(gap_record(one.shard",
    ),
)


def main() -> int:
    """0 when every mutation is caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.sabotage", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each mutation (default 60)")
    parser.add_argument("--only", default="", help="mutations whose name contains this")
    arguments = parser.parse_args()
    chosen = [one for one in MUTATIONS if arguments.only in one.name]
    survivors = [one for one in chosen if not _is_caught(one, arguments.seconds)]
    _say(f"{len(chosen) - len(survivors)} of {len(chosen)} are caught")
    return 1 if survivors else 0


def _is_caught(mutation: Mutation, seconds: int) -> bool:
    with tempfile.TemporaryDirectory() as where:
        copy = Path(where)
        for name in COPIED:
            shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        file = copy / mutation.file
        text = file.read_text()
        if text.count(mutation.old) != 1:
            msg = f"{mutation.name}: {mutation.file} has {text.count(mutation.old)} times {mutation.old!r}"
            raise ValueError(msg)
        file.write_text(text.replace(mutation.old, mutation.new))
        began = time.monotonic()
        told = subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seconds", str(seconds), "--no-shrink"],
            cwd=copy,
            capture_output=True,
            text=True,
            check=False,
        )
    spent = time.monotonic() - began
    what = next((line for line in told.stdout.splitlines() if "FAILED" in line), "")
    crash = told.stderr.strip().splitlines()[-1:] if told.returncode and not what else []
    verdict = "caught" if told.returncode else "SURVIVED"
    _say(f"{verdict:<9} {spent:5.0f} s  {mutation.name}: {what.partition('FAILED: ')[2] or crash}")
    return told.returncode != 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
