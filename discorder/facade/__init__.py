"""Serve unmodified bots as Discord would: gateway and REST on loopback, fed by what the control plane has received.

It knows no shard and keeps no session table: what it needs for a RESUME is in the session id.

Begin with `opening`: it loads the `clients` and starts the `server`. A `connection` is one websocket of a bot, with its
`encoding` and `frames`; `handshake` checks IDENTIFY and RESUME, a `session` reads its `stream` of events, `session_id` carries
it, `places` remembers how far each bot is, and `live` knows all sessions. The way back: `rest`, and `commands` with `nonces`
and `member_requests`. In a process of its own the façade copies the journal with `follower`, sends with `bus_commands` and
reports with `reporter` to `reports`; `journal_setup` makes the journal.
"""
