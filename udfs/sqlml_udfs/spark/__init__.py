"""Versions as functions of Spark."""
