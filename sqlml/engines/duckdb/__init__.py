"""DuckDB as a place where data lives."""
