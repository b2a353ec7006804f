"""Pictures and tables, generated: from the transition table, from runs of the machine, and from the imports of the package."""

from discorder.pictures.render import COMMITTED, PictureFormat, Subject, check_all, render, write_all
from discorder.pictures.trail import Trail, Visit

__all__ = ["COMMITTED", "PictureFormat", "Subject", "Trail", "Visit", "check_all", "render", "write_all"]
