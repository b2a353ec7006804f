"""`discorder serve` that kills itself: ``python -m tests.kills.child POINT PASSES DELAY_MS -c FILE``.

Everything but the trap is the real command. SIGKILL cannot be caught, so what a test sees afterwards is what a crash leaves.
"""

from __future__ import annotations

import sys

from discorder.cli import main
from tests.kills.points import POINTS, Trap

if __name__ == "__main__":
    name, passes, delay_ms, *rest = sys.argv[1:]
    POINTS[name].arm(Trap(int(passes), float(delay_ms) / 1000))
    sys.argv = ["discorder", "serve", *rest]
    main()
