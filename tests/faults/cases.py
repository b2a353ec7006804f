"""The fault cases by number: the sentence of each, as `make faults` prints it. Values only.

Each comes from what hurt the users of other gateway clients (docs/faults.md). The tests of case 7 are those in this folder whose
names begin with ``test_07_``.
"""

from __future__ import annotations

CASES: dict[int, str] = {
    1: "the resume host answers 503 for 15 min, the main host is fine",
    2: "the upgrade succeeds, Hello does not come",
    3: "a half-open socket after READY",
    4: "op 7 fifty times in a minute",
    5: "op 7 and op 9 before Hello, before READY, during a resume",
    6: "op 9 true and false in Identifying, Resuming, Ready",
    7: "close 4004, 4010-4014",
    8: "close 4000-4003, 4005, 4007-4009, 1000, 1001, 1006, unknown",
    9: "kill -9, restart within 10 s",
    10: "a crash loop every 5 s for an hour",
    11: "a required publisher is down for 2 min at 50 events/s",
    12: "a best-effort publisher blocks for ever, another raises",
    13: "a callback of an old socket comes after the redial",
    14: "the host sleeps for 10 min",
    15: "the wall clock jumps by -1 h and +1 h",
    16: "shutdown in every state, back-off and dial included",
    17: "a quiet guild for 24 h",
    18: "bursts of 1 MB GUILD_CREATEs, a slow consumer",
    19: "each RESUME is answered by close 1005 or 1006",
    20: "connect, READY, close: flapping",
    21: "a second READY, garbage, a bomb: breaches of protocol",
    22: "120 sends in 60 s reached by the bot's own commands",
    23: "an outbound command of more than 4,096 bytes",
    24: "the token in logs, reprs, recordings, tracebacks",
    25: "the session store: full, read-only, corrupt, newer",
    26: "port taken, log not writable, bad TOML, no token",
    27: "a second control plane on the same store and shard",
    28: "two hosts, no common store, one token",
    29: "a rolling upgrade: the new one waits, the old one leaves",
    30: "one of two subscribers stalls",
}
