"""Export the state of a control plane to Prometheus, read when it is scraped."""

from discorder.metrics.exposition import Exposition

__all__ = ["Exposition"]
