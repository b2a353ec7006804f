"""Benchmarks of whole processes: what the control plane and its readers cost beside other gateway clients."""
