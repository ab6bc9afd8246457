"""SQLAlchemy's dialect: ``create_engine("sqlml:///bank.duckdb")``."""
