"""What outlives a connection: stored sessions, who owns which shard, and the identify budget.

Use: ``store = await open_store(…)``, ``await store.hold(shards)``, ``await store.load(count)``; a gate over the store; at the
end ``await gate.close()``, then ``await store.close()``. Must not know the machine, the driver or a transport.
"""

from discorder.sessions.allowance import OtherUse
from discorder.sessions.book import Book, Slot
from discorder.sessions.gate import IdentifyGate
from discorder.sessions.ledger import (
    SPACING,
    Budget,
    ColdStart,
    Debit,
    Grant,
    Ledger,
    LookUp,
    Refusal,
    RefusalCause,
    StartLimit,
)
from discorder.sessions.locks import ShardLocks, hold_shards
from discorder.sessions.opening import default_store_path, open_store, store_path
from discorder.sessions.reading import Reading, read_store
from discorder.sessions.sqlite import SqliteSessionStore
from discorder.sessions.store import (
    Health,
    MemorySessionStore,
    SessionStore,
    StoredSession,
    StoreState,
    Untold,
    bot_key,
    fitting,
    overlap,
    token_key,
)
from discorder.sessions.ticket import Ticket

__all__ = [
    "SPACING",
    "Book",
    "Budget",
    "ColdStart",
    "Debit",
    "Grant",
    "Health",
    "IdentifyGate",
    "Ledger",
    "LookUp",
    "MemorySessionStore",
    "OtherUse",
    "Reading",
    "Refusal",
    "RefusalCause",
    "SessionStore",
    "ShardLocks",
    "Slot",
    "SqliteSessionStore",
    "StartLimit",
    "StoreState",
    "StoredSession",
    "Ticket",
    "Untold",
    "bot_key",
    "default_store_path",
    "fitting",
    "hold_shards",
    "open_store",
    "overlap",
    "read_store",
    "store_path",
    "token_key",
]
