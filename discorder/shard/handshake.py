"""The first word on a connection: RESUME where a session is held, IDENTIFY where one is to be opened. It sends nothing itself."""

from __future__ import annotations

from discorder.logs import logger
from discorder.shard.chronicle import Chronicle
from discorder.shard.outside import Outside
from discorder.shard.reception import Reception
from discorder.shard.slot import Slot
from discorder.statemachine import Session
from discorder.tracking.shard_tracker import ShardTracker
from discorder.wire import identify_frame, resume_frame


class Handshake:
    """Makes the frames of one shard, and tells its reception what may be dispatched after them."""

    def __init__(
        self, tracker: ShardTracker, reception: Reception, outside: Outside, slot: Slot, chronicle: Chronicle
    ) -> None:
        self._tracker = tracker
        self._reception = reception
        self._outside = outside
        self._slot = slot
        self._chronicle = chronicle

    def resume(self, session: Session) -> bytes:
        """RESUME from where every publisher that must not lose has come to."""
        seq = self._outside.delivery.resume_seq(self._reception.label, self._reception.seq or 0)
        self._reception.resuming(seq)
        logger.info("Sending RESUME", seq=seq, session=self._tracker.session_label, **self._chronicle.who)
        return resume_frame(self._outside.token.reveal(), session_id=session.session_id, seq=seq)

    def identify(self) -> bytes:
        """IDENTIFY, on the ticket that the gate has granted: it is spent with this."""
        ticket = self._slot.take_ticket()
        outside, tracker = self._outside, self._tracker
        self._reception.identifying()
        logger.info("Sending IDENTIFY", intents=outside.intents, **self._chronicle.who)
        shard = (tracker.shard_id, tracker.shard_count)
        ticket.sent()
        tracker.stats.identify_count += 1
        compress = outside.payload_compression
        return identify_frame(outside.token.reveal(), intents=outside.intents, shard=shard, compress=compress)
