"""Build the frame that opens or resumes a session, IDENTIFY or RESUME."""

from __future__ import annotations

from discorder.logs import logger
from discorder.shard.dependencies import ShardDependencies
from discorder.shard.identify_request import IdentifyRequest
from discorder.shard.receiver import Receiver
from discorder.shard.transition_log import TransitionLog
from discorder.statemachine import Session
from discorder.tracking.shard_tracker import ShardTracker
from discorder.wire import identify_frame, resume_frame


class Handshake:
    """Build the frames of one shard and prepare its receiver for what follows them."""

    def __init__(
        self,
        tracker: ShardTracker,
        receiver: Receiver,
        dependencies: ShardDependencies,
        slot: IdentifyRequest,
        transition_log: TransitionLog,
    ) -> None:
        self._tracker = tracker
        self._receiver = receiver
        self._dependencies = dependencies
        self._slot = slot
        self._transition_log = transition_log

    def resume(self, session: Session) -> bytes:
        """Return RESUME with the lowest sequence that all required publishers have delivered."""
        seq = self._dependencies.delivery.resume_seq(self._receiver.label, self._receiver.resume_from)
        self._receiver.resuming(seq)
        logger.info("Sending RESUME", seq=seq, session=self._tracker.session_label, **self._transition_log.who)
        return resume_frame(self._dependencies.token.reveal(), session_id=session.session_id, seq=seq)

    def identify(self) -> bytes:
        """Return IDENTIFY and spend the ticket that the gate has granted."""
        ticket = self._slot.take_ticket()
        dependencies, tracker = self._dependencies, self._tracker
        self._receiver.identifying()
        logger.info("Sending IDENTIFY", intents=dependencies.intents, **self._transition_log.who)
        shard = (tracker.shard_id, tracker.shard_count)
        ticket.sent()
        tracker.stats.identify_count += 1
        compress = dependencies.payload_compression
        return identify_frame(dependencies.token.reveal(), intents=dependencies.intents, shard=shard, compress=compress)
