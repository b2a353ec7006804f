"""A reader of the bus that keeps the event stream of the status page open and scrapes the metrics, as tools of an operator do."""

from __future__ import annotations

import sys
import threading
import time
from urllib.request import urlopen

from tests.bench.clients import raw_reader
from tests.bench.subjects import page_of

SCRAPE_EVERY = 5.0  # seconds; Prometheus' default is 60


def _follow(url: str) -> None:
    with urlopen(f"{url}events") as stream:  # noqa: S310  # this machine
        for _ in stream:
            pass


def _scrape(url: str) -> None:
    while True:
        time.sleep(SCRAPE_EVERY)
        with urlopen(f"{url}metrics") as answer:  # noqa: S310  # this machine
            answer.read()


if __name__ == "__main__":
    endpoint = sys.argv[1]
    for work in (_follow, _scrape):
        threading.Thread(target=work, args=(page_of(endpoint),), daemon=True).start()
    raw_reader.main(endpoint, "drain")
