"""Every fault that an input or a machine can have, F1-F46: what a verb then does."""
