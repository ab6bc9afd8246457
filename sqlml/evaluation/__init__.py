"""How good a version is, and what it has learnt: scores, figures and curves as tables."""
