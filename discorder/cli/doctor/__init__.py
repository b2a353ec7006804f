"""Check whether a control plane could start and run here: `discorder doctor`. Changes nothing and sends no IDENTIFY."""
