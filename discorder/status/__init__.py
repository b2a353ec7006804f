"""Describe a running control plane as one document, `discorder.status/1`, and as a stream of its parts. Reads only.

`document` is the schema, `updates` that of the stream. `board` keeps the document up to date: `describer` composes it of
`process`, `verdict`, `shards` (with `next_step`), `delivery`, `facade`, `budget`, `flows`, `rates` and `log_records`. `feed`
finds what has changed and passes it to each `listener`. `times` and `shard_ranges` write values in short.
"""
