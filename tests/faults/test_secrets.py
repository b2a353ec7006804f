"""Case 24: the token, in everything that the control plane writes or shows. Never."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from discorder import diagnose
from discorder.simulator import Simulator
from tests.faults.table import Case
from tests.harness import StartStage

Start = Callable[..., Awaitable[Simulator]]
TOKEN = "MTM0NTE4Nzk4OTMxNTI1NjMzMw.GkQx1z.a-secret-that-must-stay-one-0123456789"
PARTS = (TOKEN, TOKEN.rpartition(".")[2])


def is_clean(text: str) -> None:
    """Fail where ``text`` holds the token in any notation, or its secret part."""
    for part in PARTS:
        assert part not in text
        assert part[::-1] not in text


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("compress", ["auto", "none"])
async def test_24_the_token_is_in_no_log_repr_or_status(
    case: Case,
    start_simulator: Start,
    start_stage: StartStage,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    form: str,
    compress: str,
) -> None:
    """At level debug, with every event and every beat, through an IDENTIFY, a RESUME, a failure with the token in its text."""
    sim = await start_simulator(token=TOKEN)
    log = tmp_path / "plane.log"
    settings = [f"log.file={log}", f'log.format="{form}"', "log.heartbeat=true", "log.events=true"]
    stage = start_stage(sim, *settings, f"gateway.compress={compress}", f"session.store={tmp_path / 's.sqlite3'}")
    tracker = await stage.ready()
    await sim.dispatch("MESSAGE_CREATE", {"content": f"my token is {TOKEN}"})
    await sim.drop()
    await stage.ready(2)
    shown = [repr(tracker), repr(tracker.shards), repr(diagnose(tracker)), repr(tracker.session), repr(stage.ref)]
    shown += [repr(vars(shard)) for shard in tracker.shards] + [repr(tracker.config), repr(tracker.publishers)]
    shown += [repr(stage.client), repr(vars(stage.client))]
    tracker.throw_to("processor", chained())
    await stage.until(lambda: tracker.shards[0].cause is not None)
    shown.append(repr(diagnose(tracker)))
    await stage.ready(3)
    shown += [repr(step) for step in tracker.transitions]
    assert any("Authorization" in text for text in shown)
    await stage.stop()
    written = log.read_text() + capsys.readouterr().err
    for landmark in ("Sending IDENTIFY", "Sending RESUME", "Authorization"):  # the failure itself is there
        assert landmark in written
    is_clean(written)
    is_clean("".join(shown))
    is_clean((tmp_path / "s.sqlite3").read_bytes().decode("latin-1"))
    is_clean("".join(event.data.decode() for event in stage.recorder.records))
    case.note(note="logs, reprs, store, recordings, tracebacks, error texts")


def chained() -> BaseException:
    """An error with the token in its text, raised from another one with it."""
    try:
        msg = f"with {TOKEN} inside"
        raise RuntimeError(msg)
    except RuntimeError as inner:
        outer = ValueError(f"Authorization: Bot {TOKEN}")
        outer.__cause__ = inner
        return outer


# ---------------------------------------------------------------- errors that reach the caller

Break = Callable[[Simulator], Awaitable[None]]
ENDS: dict[str, tuple[str, Break | None]] = {
    "a fatal close": ("log.level=debug", lambda sim: sim.close(4004)),
    "a failure": ("gateway.fail_on_error=true", lambda sim: sim.drop()),
    "a refused upgrade": ("gateway.fail_on_error=true", None),
    "a store that cannot be": ("session.store=/proc/nowhere/sessions.sqlite3", None),
    "a refused token": ("gateway.max_attempts=1", None),
}


@pytest.mark.parametrize("end", ENDS)
async def test_24_the_token_is_in_no_error_and_in_no_traceback(
    case: Case, start_simulator: Start, start_stage: StartStage, end: str
) -> None:
    """Text, repr, the whole chain with the local variables of every frame, as error reporters and debuggers show them."""
    sim = await start_simulator(token="another." + TOKEN if end == "a refused token" else TOKEN)
    if end == "a refused upgrade":
        await sim.refuse_upgrades(503)
    setting, break_it = ENDS[end]
    stage = start_stage(sim, setting, token=TOKEN)
    if break_it is not None:
        await stage.ready()
        await break_it(sim)
    error = await stage.end()
    assert error is not None
    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    is_clean("".join(report.format()) + repr(error) + str(error))


# ---------------------------------------------------------------- processes


@pytest.mark.system
async def test_24_the_token_is_in_no_recording_and_in_nothing_a_process_prints(
    case: Case, environment: dict[str, str], tmp_path: Path
) -> None:
    """`discorder serve --record` in development mode, until Discord refuses the token; and a script that prints the traceback."""
    async with Simulator(guilds=1, rate=50, token=TOKEN, identify_spacing=0.0) as sim:
        script = (
            "import sys, traceback, discorder\n"
            "try:\n    discorder.run(config_file_path=sys.argv[1])\n"
            "except discorder.DiscorderError:\n    traceback.print_exc()\n    sys.exit(1)\n"
        )
        config = tmp_path / "plane.toml"
        config.write_text(
            f'[gateway]\napi = "{sim.api_url}"\n[log]\nlevel = "debug"\nformat = "json"\nheartbeat = true\nevents = true\n'
            '[session]\nstore = ""\n[publishers.sink]\nkind = "channel"\n'
        )
        recording = tmp_path / "session.jsonl"
        for number, command in enumerate(
            (
                ("-m", "discorder", "serve", "--config", str(config), "--record", str(recording)),
                ("-c", script, str(config)),
            )
        ):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-X", "dev", *command),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment | {"DISCORD_BOT_TOKEN": TOKEN},
            )
            ending = asyncio.ensure_future(process.communicate())
            await sim.wait_for(lambda number=number: sim.identifies > number, timeout=120)  # type: ignore[misc]  # binds it
            await sim.dispatch("MESSAGE_CREATE", {"content": f"my token is {TOKEN}"})
            await asyncio.sleep(0.05)
            await sim.close(4004)
            async with asyncio.timeout(60):
                out, err = await ending
            assert process.returncode != 0
            assert b"4004" in err
            assert number == 0 or b"Traceback" in err
            is_clean(out.decode() + err.decode())
        is_clean(recording.read_text())
        assert "MESSAGE_CREATE" in recording.read_text()
