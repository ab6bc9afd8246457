"""What is remembered about models: names, versions, metrics, jobs, endpoints."""

from sqlml.catalog.endpoints import Endpoint
from sqlml.catalog.jobs import Job
from sqlml.catalog.store import Catalog, Version

__all__ = ["Catalog", "Endpoint", "Job", "Version"]
