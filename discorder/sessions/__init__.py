"""Keep what outlives a connection: sessions, the owner of each shard, and the identify budget.

Use: ``store = await open_store(…)``, ``await store.hold(shards)``, ``await store.load_all()``; a gate over the store; at the
end ``await gate.close()``, then ``await store.close()``.

`store` defines a stored session and the interface; `opening` chooses between `memory` and `sqlite`, which writes on a thread of
its own through `database`, with the tables of `schema`, the signatures of `seal` and the checks of `integrity`. `locks` give
each shard one owner, its `holder`. `gate` admits the shards to IDENTIFY from a `wait_queue`: the `ledger` decides over the
values of `identify_budget`, and `start_limit` looks up Discord's own count.
"""

from discorder.sessions.gate import IdentifyGate, Ticket
from discorder.sessions.identify_budget import (
    Budget,
    ColdStart,
    Debit,
    Grant,
    IdentifyQueue,
    Refusal,
    RefusalCause,
    Slot,
    StartLimit,
)
from discorder.sessions.ledger import SPACING, Ledger
from discorder.sessions.locks import ShardLocks, hold_shards
from discorder.sessions.memory import MemorySessionStore
from discorder.sessions.opening import Reading, default_store_path, open_store, read_store, state_folder, store_path
from discorder.sessions.seal import Seal
from discorder.sessions.sqlite import SqliteSessionStore
from discorder.sessions.start_limit import OtherUse
from discorder.sessions.store import (
    Health,
    SavedSessions,
    SessionStore,
    StoredSession,
    StoreState,
    UnreportedLoss,
    bot_key,
    fitting,
    overlap,
    token_key,
)

__all__ = [
    "SPACING",
    "Budget",
    "ColdStart",
    "Debit",
    "Grant",
    "Health",
    "IdentifyGate",
    "IdentifyQueue",
    "Ledger",
    "MemorySessionStore",
    "OtherUse",
    "Reading",
    "Refusal",
    "RefusalCause",
    "SavedSessions",
    "Seal",
    "SessionStore",
    "ShardLocks",
    "Slot",
    "SqliteSessionStore",
    "StartLimit",
    "StoreState",
    "StoredSession",
    "Ticket",
    "UnreportedLoss",
    "bot_key",
    "default_store_path",
    "fitting",
    "hold_shards",
    "open_store",
    "overlap",
    "read_store",
    "state_folder",
    "store_path",
    "token_key",
]
