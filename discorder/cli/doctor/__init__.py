"""Check whether a control plane could start and run here: `discorder doctor`. Changes nothing and sends no IDENTIFY.

Begin with `report`, then `examination`, which runs the checks of `account`, `network`, `store`, `local` (with `listeners`),
`publishers` and `facade` side by side. `facts` requests what several of them need; a `finding` is one line.
"""
