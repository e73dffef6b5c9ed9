"""Flax linen towers and how their weights are read."""
