"""What is remembered: models, versions, metrics, jobs, endpoints, API keys, database functions, connections, runners."""

from sqlml.catalog.api_keys import ApiKey
from sqlml.catalog.endpoints import Arm, Endpoint, query_uid
from sqlml.catalog.frozen import FrozenCatalog
from sqlml.catalog.functions import DatabaseFunction
from sqlml.catalog.jobs import Job
from sqlml.catalog.resources import Resource
from sqlml.catalog.shares import Share
from sqlml.catalog.store import Catalog, Version

__all__ = [
    "ApiKey", "Arm", "Catalog", "DatabaseFunction", "Endpoint", "FrozenCatalog", "Job", "Resource", "Share", "Version",
    "query_uid",
]  # fmt: skip
