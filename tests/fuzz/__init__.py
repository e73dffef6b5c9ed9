"""Mutated inputs: nothing but mmjax's own errors, no hang, no canary, whatever the bytes.

python -m tests.fuzz --seconds=3600
"""
