"""Test a publisher of your own with `PublisherContract`. Needs pytest, without plug-ins.

docs/delivery.md ("A publisher of your own") shows how to use it.
"""

try:
    import pytest
except ImportError as error:
    msg = "discorder.testing needs pytest; install it with: pip install pytest"
    raise ImportError(msg) from error

pytest.register_assert_rewrite("discorder.testing.publisher_contract")

from discorder.testing.publisher_contract import PublisherContract, PublisherRig, Received, ServerRig  # noqa: E402  # after the line above

__all__ = ["PublisherContract", "PublisherRig", "Received", "ServerRig"]
