"""The one training engine: state, step, loop. CLIP, mapping networks and captioners all use it."""
