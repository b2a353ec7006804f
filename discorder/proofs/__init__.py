"""Proofs about the table: a small world around the machine, searched, model-checked, and held against what really happened.

`docs/proofs.md` tells what is proved and how to change the table. Nothing that runs a session imports this package.
"""
