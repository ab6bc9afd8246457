"""SQLAlchemy's own suite for dialects; a pytest of its own, begun by ``tests/alchemy/test_suite.py``."""

from sqlalchemy.dialects import registry

for _name in ("sqlml", "sqlml.sqlml"):
    registry.register(_name, "sqlml.alchemy.dialect", "SqlmlDialect")

from sqlalchemy.testing import provision
from sqlalchemy.testing.plugin.pytestplugin import *


@provision.temp_table_keyword_args.for_db("sqlml")
def _temporary(cfg, eng):
    return {"prefixes": ["TEMPORARY"]}
