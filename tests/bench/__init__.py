"""Ratios against the bare libraries, by ``make bench``; nothing timed is asserted in ``make test``."""
