"""Any database that SQLAlchemy can read from."""
