"""Proofs about the table: build a model of the machine and its environment, search it, and check recorded runs.

`docs/proofs.md` lists what is proved and explains how to change the table.
"""
