"""Foundations: errors, types, configuration, mesh, keys, run folder, progress, checkpoints."""
