"""Verbs killed at random moments and started again: the same bytes as if nothing had happened.

python -m tests.crash --trials=50 --seed=0
"""
