"""Show all processes of `discorder serve --processes N` on one HTTP server: merge their documents, forward commands."""
