"""Gateway clients beside each other under the same faults: how many events each of them loses."""
