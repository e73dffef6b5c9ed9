"""Measuring what was found and what was learned."""
