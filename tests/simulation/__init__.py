"""Deterministic simulation: a whole control plane on virtual time, before a gateway in memory, with faults out of a seed.

One seed is one run, bit for bit. ``python -m tests.simulation --seed 7`` runs one, without ``--seed`` fresh ones. The way in is
`plan.make_plan` and `world.run`.
"""
