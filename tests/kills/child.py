"""`discorder serve` that kills itself: ``python -m tests.kills.child [--at POINT PASSES DELAY_MS] [--slow-disk] -c FILE``.

Everything but the trap and the disk is the real command. SIGKILL cannot be caught: what is left is what a crash leaves.
"""

from __future__ import annotations

import argparse
import sys

from discorder.cli import main
from tests.kills.points import POINTS, Trap, slow_disk

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--at", nargs=3)
    parser.add_argument("--slow-disk", action="store_true")
    options, rest = parser.parse_known_args()
    if options.slow_disk:
        slow_disk()
    if options.at is not None:
        name, passes, delay_ms = options.at
        POINTS[name].arm(Trap(int(passes), float(delay_ms) / 1000))
    sys.argv = ["discorder", "serve", *rest]
    main()
