"""Long runs, by ``make soak``; not part of ``make test``."""
