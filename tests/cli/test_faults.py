"""`discorder serve --fault`: a control plane lives through what is injected, and no bot in production gets it by accident."""

from __future__ import annotations

import pytest

from discorder.simulator import Simulator
from tests.commandline import Command
from tests.serving import Serve

pytestmark = pytest.mark.system


async def test_mistakes_and_other_hosts_are_refused(discorder: Command) -> None:
    wrong = await discorder("serve", "--fault", "explode@3s", token="MTIz.of.a-bot")
    assert wrong.code == 2
    assert "there is no fault 'explode', only drop, stall, close, zombie, slow-dial" in " ".join(wrong.err.split())
    elsewhere = await discorder("serve", "--fault", "drop@3s", token="MTIz.of.a-bot")
    assert elsewhere.code == 2
    assert "https://discord.com/api/v10 is not this machine" in " ".join(elsewhere.err.split())
    assert "--fault-on-discord with the token of a staging bot" in " ".join(elsewhere.err.split())


@pytest.mark.heavy
async def test_an_injected_reset_is_survived_by_resume(sim: Simulator, serve: Serve) -> None:
    """It is announced at the start, and again when it happens."""
    running = await serve("--fault", "drop@1s", "--fault", "slow-dial=100ms")
    await sim.wait_for(lambda: sim.resumes == 1, timeout=60)
    running.process.terminate()
    assert await running.ends() == 0
    assert "Faults are injected: never in production" in running.log
    assert "drop@1s, slow-dial=100ms" in running.log
    assert running.log.count("Injected a fault") == 2
    assert (sim.identifies, sim.connects) == (1, 2)
