"""What an operator looks at: the tracker of a plane and of each shard, their health, and how far a start is."""
