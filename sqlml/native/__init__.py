"""Loops in C, built when the package is installed where there is a compiler; everything works without them, slower."""
