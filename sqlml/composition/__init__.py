"""Endpoints that are a query over several models: what they compute, the tables they look into, and how they are run."""
