"""Show all processes of `discorder serve --processes N` on one HTTP server: merge their documents, forward commands.

Begin with `site`. A `member` is one process, `member_status` what is known of it; `parts` applies its events to its document.
`merge` makes one document of all, with `flows` and `verdict`; `board` keeps it and streams its changes. `metrics` merges the
metrics.
"""
