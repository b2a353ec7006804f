"""Render the status page as one self-contained document.

`render_page` writes a snapshot that is complete without JavaScript; the script in it then follows ``/events``. The modules
here and the files in ``script/`` come in pairs and write the same words; a test compares them.
"""

from __future__ import annotations

from discorder.http.page.rendering import StatusPage, render_page

__all__ = ["StatusPage", "render_page"]
