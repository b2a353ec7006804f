"""Print the findings: a line each, or one JSON document. No token is ever printed."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import typer

from discorder.cli.doctor.examination import Start, examine, read_start
from discorder.cli.doctor.finding import Finding, Status
from discorder.escapes import escape_controls
from discorder.redaction import Redactor

FAILED = 1  # exit code
STATUS_WIDTH = 6
NAME_WIDTH = 12  # of the longest name of a check, and two blanks


def run_doctor(path: Path | None, overrides: Sequence[str], *, as_json: bool, limit: float) -> int:
    """Make all checks and print them; return the exit code: 0 if nothing failed. ``limit``: seconds for each check."""
    logging.getLogger("discorder").addHandler(logging.NullHandler())  # retries are reported by the checks
    start = read_start(path, overrides)
    return asyncio.run(_run(start, as_json=as_json, limit=limit))


async def _run(start: Start, *, as_json: bool, limit: float) -> int:
    secrets = (start.token or "", *(() if start.config is None else start.config.gateway.proxies.secrets))
    redact = Redactor(secrets)
    findings: list[Finding] = []

    def shown(text: str) -> str:
        return escape_controls(redact(text))

    def add(more: Iterable[Finding]) -> None:
        for finding in more:
            clean = Finding(finding.check, finding.status, *map(shown, (finding.text, finding.remedy)))
            findings.append(clean)
            if not as_json:
                typer.echo(_line(clean))

    add(start.findings)
    if start.config is not None:
        async for more in examine(start.config, start.token, limit):
            add(more)
    counts = Counter(finding.status for finding in findings)
    if as_json:
        typer.echo(json.dumps(_document(findings)))
    else:
        typer.echo(f"{counts[Status.OK]} ok, {counts[Status.WARN]} to look at, {counts[Status.FAIL]} failed")
    return FAILED if counts[Status.FAIL] else 0


def _line(finding: Finding) -> str:
    remedy = f"\n{'':{NAME_WIDTH + STATUS_WIDTH}}→ {finding.remedy}" if finding.remedy else ""
    return f"{finding.status:<{STATUS_WIDTH}}{finding.check:<{NAME_WIDTH}}{finding.text}{remedy}"


def _document(findings: Sequence[Finding]) -> dict[str, object]:
    rows = [{"check": one.check, "status": one.status, "text": one.text, "remedy": one.remedy} for one in findings]
    return {"ok": all(one.status != Status.FAIL for one in findings), "checks": rows}
