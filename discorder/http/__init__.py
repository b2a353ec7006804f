"""Serve HTTP: the status page, the status document and its stream of events, metrics, health, and the operator's verbs.

Begin with `server`, the rules of every route: a `listener` with `tls` (or a socket that was `inherited`) accepts each
`connection`, `security` decides who may request what, with `login`, `operator_token` and `signature`. `site` has the `routes`
of one control plane: `page/`, `stream`, `health`, `verbs` and `shard_range`. `answers` forms the responses.
"""
