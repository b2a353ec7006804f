"""Find the sessions whose guilds the journal does not have, and end each of them once its replay is complete.

Discord sends the guilds once per session. Without them a bot of the façade could not be served, so that session is worth an
IDENTIFY; but only after RESUME has brought what Discord still holds of it, and only if the identify budget allows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from discorder.logs import logger
from discorder.publishers.journal import Journal
from discorder.sessions import Budget, StoredSession


@dataclass(slots=True)
class _Missing:
    """A stored session (its label) without guilds. ``before``: the label of the session whose guilds the journal has."""

    session: str
    before: str | None
    refused: bool = False  # it was resumed, and the budget does not allow to end it
    ended: bool = False  # the next session has not begun


class GuildRecovery:
    """Follows the stored sessions of one control plane. ``journal``: None without a façade; nothing happens then."""

    def __init__(self, journal: Journal | None, budget: Callable[[], Budget | None]) -> None:
        self._journal = journal
        self._budget = budget
        self._missing: dict[int, _Missing] = {}

    @property
    def keeps_guilds(self) -> bool:
        """Return whether there is a journal."""
        return self._journal is not None

    @property
    def refused(self) -> Sequence[int]:
        """Return the shards that stay without guilds, because the identify budget does not allow a new session."""
        return sorted(shard for shard, missing in self._missing.items() if missing.refused)

    def use_layout(self, ids: Sequence[int], count: int) -> None:
        """Note the shards of this process."""
        if self._journal is not None:
            self._journal.use_layout(ids, count)

    def resume_seq(self, stored: StoredSession) -> int | None:
        """Return the delivered sequence with which a stored session goes on; None if not even READY was delivered.

        The journal is not synced to the disk at each event: after a power cut it may end before the stored sequence.
        """
        delivered = stored.delivered
        # a READY that was not delivered comes again, and the guilds after it
        if self._journal is None or delivered is None:
            return delivered
        end = self._journal.end(stored.shard_id)
        if end is not None and end.session == stored.label:
            return min(delivered, end.seq)
        self._missing[stored.shard_id] = _Missing(stored.label, None if end is None else end.session)
        logger.warning(
            "The journal has no guilds of the stored session: the session is resumed, and a new one follows",
            shard=stored.shard_id,
            session=stored.label,
        )
        return delivered

    def why_end(self, shard_id: int, session: str | None) -> str | None:
        """Return why the session (its label) of a shard must end now that its replay is complete; None to keep it."""
        missing = self._missing.get(shard_id)
        if missing is None or missing.session != session:
            return None
        missing.refused = not self._may_identify()
        budget = self._budget()
        if missing.refused and budget is not None:
            logger.warning(
                "The guilds of a shard are not known, and the identify budget allows no new session now: the façade serves no "
                "bot on this shard until it does",
                shard=shard_id,
                session=session,
                budget=str(budget),
            )
        if missing.refused:  # perhaps only until the look-up of the gateway has answered
            return None
        missing.ended = True
        return "the journal has no guilds of this session, and Discord sends them to a new one only"

    def due(self) -> Sequence[int]:
        """Return the shards that should resume once more, because the budget allows a new session for them now."""
        if not self._missing:
            return ()
        self._forget_found()
        return self.refused if self._may_identify() else ()

    def _forget_found(self) -> None:
        """Forget the shards whose guilds are known by now: a new session has begun, for whatever reason."""
        for shard_id, missing in tuple(self._missing.items()):
            end = None if self._journal is None else self._journal.end(shard_id)
            if end is not None and end.session not in {missing.session, missing.before}:
                del self._missing[shard_id]

    def _may_identify(self) -> bool:
        self._forget_found()
        budget = self._budget()
        return budget is not None and budget.spendable > sum(missing.ended for missing in self._missing.values())
