"""Prove properties of the table: build a model of the machine and its environment, search it, and check recorded runs.

`docs/proofs.md` lists what is proved and explains how to change the table.

Begin with `reports`. The `model` is written in the language of `model_dsl`: `variables`, the meaning of the table's `actions`,
the `environment`, and the `properties`; `completeness` checks that it covers the table. `search` visits every state with the
`compiled` model and prints a `transcript`. `liveness` has the properties of whole runs, which `spin` checks in `promela`.
`traces` reads recorded runs, and `validation` compares them with the model.
"""
