"""Versions as functions of DuckDB."""
