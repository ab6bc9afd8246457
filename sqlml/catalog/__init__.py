"""What is remembered: models, versions, metrics, jobs, endpoints, database functions, connections, runners."""

from sqlml.catalog.endpoints import Endpoint
from sqlml.catalog.functions import DatabaseFunction
from sqlml.catalog.jobs import Job
from sqlml.catalog.resources import Resource
from sqlml.catalog.store import Catalog, Version

__all__ = ["Catalog", "DatabaseFunction", "Endpoint", "Job", "Resource", "Version"]
