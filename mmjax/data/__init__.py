"""The host side: reading pairs, decoding images, tokenising. NumPy only, never JAX."""
