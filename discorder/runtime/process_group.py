"""Tell a process that it is one of several that run the shards of one bot: `discorder serve --processes N`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass

GROUP_VARIABLE = "DISCORDER_PROCESS"  # of the environment of each process


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """The ``number`` of this process, and the ``urls`` of the HTTP servers of all, "" for one that has none."""

    number: int
    urls: tuple[str, ...]

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> ProcessGroup | None:
        """Return what the supervising process has set; None for a process that is alone."""
        text = environment.get(GROUP_VARIABLE)
        if text is None:
            return None
        fields = json.loads(text)
        return cls(fields["number"], tuple(fields["urls"]))

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables for the process."""
        return {GROUP_VARIABLE: json.dumps(asdict(self))}

    @property
    def count(self) -> int:
        """Return the number of processes."""
        return len(self.urls)
