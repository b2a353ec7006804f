"""Decide how long a shard's session stays stored. Pure: `SessionWriter` posts the triggers and forgets what may be forgotten.

A session that Discord ended stays stored until the next one takes its place, or until the shard has ended and every required
publisher has the record of its loss. If the process is killed before, the next one finds the loss by trying to resume.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class Retention(Enum):
    """What is stored of one shard, and why."""

    IN_USE = "the shard runs on the session that is stored, or none is"
    DROPPED = "the session is over, and the shard has no other yet"
    UNTOLD = "the session is over and the shard has ended; a required publisher lacks some of it"
    ENDED = "the shard has ended; what is stored is for the next process"


class Trigger(Enum):
    """What happened."""

    SAVED = "a new session was stored in place of the last"
    DROPPED = "the session was given up"
    ENDED = "the shard ended, and handed the loss of a session to the publishers"
    TOLD = "no required publisher lacks anything any more"


R, T = Retention, Trigger
TABLE: Final[dict[tuple[Retention, Trigger], Retention]] = {
    (R.IN_USE, T.SAVED): R.IN_USE,
    (R.IN_USE, T.DROPPED): R.DROPPED,
    (R.IN_USE, T.ENDED): R.ENDED,
    (R.IN_USE, T.TOLD): R.IN_USE,
    (R.DROPPED, T.SAVED): R.IN_USE,
    (R.DROPPED, T.DROPPED): R.DROPPED,
    (R.DROPPED, T.ENDED): R.UNTOLD,
    (R.DROPPED, T.TOLD): R.DROPPED,  # a kill could still come before the shard has ended
    (R.UNTOLD, T.SAVED): R.ENDED,
    (R.UNTOLD, T.DROPPED): R.UNTOLD,
    (R.UNTOLD, T.ENDED): R.UNTOLD,
    (R.UNTOLD, T.TOLD): R.ENDED,  # forgets
    (R.ENDED, T.SAVED): R.ENDED,
    (R.ENDED, T.DROPPED): R.UNTOLD,
    (R.ENDED, T.ENDED): R.ENDED,
    (R.ENDED, T.TOLD): R.ENDED,
}
FORGETS: Final = (R.UNTOLD, T.TOLD)  # the one cell in which the stored session is removed
