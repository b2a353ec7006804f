"""Pictures and tables of the life cycle, generated from `statemachine/table.py` and from nothing else."""

from discorder.pictures.render import COMMITTED, PictureFormat, check_all, render, write_all

__all__ = ["COMMITTED", "PictureFormat", "check_all", "render", "write_all"]
