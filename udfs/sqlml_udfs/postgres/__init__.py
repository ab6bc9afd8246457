"""Versions as functions of PostgreSQL."""
