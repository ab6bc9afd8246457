"""How a version becomes a function of an engine."""
