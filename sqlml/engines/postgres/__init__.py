"""PostgreSQL as a place where data lives."""
