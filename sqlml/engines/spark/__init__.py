"""Spark as a place where data lives."""
