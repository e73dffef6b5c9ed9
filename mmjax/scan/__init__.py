"""Finding poisoned pairs: encode once, score, decide, report (paper CFBD)."""
