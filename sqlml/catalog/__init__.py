"""What is remembered about models: names, versions, metrics, jobs, endpoints."""

from sqlml.catalog.store import Catalog, Endpoint, Job, Version

__all__ = ["Catalog", "Endpoint", "Job", "Version"]
