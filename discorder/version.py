"""Read the version of this package."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def installed_version() -> str:
    """Return the version of the installed distribution; "unknown" in a bundle or a copied tree, which has no metadata."""
    try:
        return metadata.version("discorder")
    except metadata.PackageNotFoundError:
        return "unknown"
