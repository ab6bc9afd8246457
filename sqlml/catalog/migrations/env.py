"""Alembic's entry: runs the migrations on the connection that ``sqlml.catalog.store`` hands over."""

from alembic import context

from sqlml.catalog.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
