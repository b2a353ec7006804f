"""Replace an unusable time zone. Only for the command line: `serve` does not change the process."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime


def require_usable_time_zone() -> str | None:
    """Use UTC if ``TZ`` differs from it by a day or more, which Python cannot represent, and return a warning.

    Otherwise every line of the log would raise ValueError.
    """
    try:
        datetime.now(UTC).astimezone()
    except (ValueError, OverflowError):
        odd = os.environ.get("TZ")
        os.environ["TZ"] = "UTC"
        time.tzset()
        return f"TZ={odd!r} is not a usable time zone: times are in UTC; set TZ to a name such as Europe/Berlin"
    return None
