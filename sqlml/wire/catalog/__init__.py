"""PostgreSQL's system catalog, pg_catalog and information_schema, over DuckDB's."""

from sqlml.wire.catalog.system import SystemCatalog

__all__ = ["SystemCatalog"]
