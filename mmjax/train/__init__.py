"""Training CLIP."""
