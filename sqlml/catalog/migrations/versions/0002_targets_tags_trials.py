"""Several targets, transforms, tags and the trials of tuning."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "tags",
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("tag", sa.String(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_tags_model_id_models"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("model_id", "version", "tag", name=op.f("pk_tags")),
    )
    op.create_table(
        "trials",
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("trial", sa.Integer(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("chosen", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_trials_version_id_versions"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("version_id", "trial", name=op.f("pk_trials")),
    )
    for name in ("targets", "key_columns", "added", "transform", "feature_info"):
        op.add_column("versions", sa.Column(name, sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("versions", sa.Column("result", sa.Text(), nullable=False, server_default=""))
    op.add_column("versions", sa.Column("plan", sa.JSON(), nullable=True))
    op.add_column("versions", sa.Column("origin", sa.Text(), nullable=True))
    op.add_column("versions", sa.Column("comment", sa.Text(), nullable=True))
    _fill()
    # One by one: to make the table anew would, in SQLite, delete the inputs and metrics that point at its rows.
    op.drop_column("versions", "target_sql_type")
    op.drop_column("versions", "classes")


def _fill() -> None:
    """What the new columns say of versions that are there: they had one target or none."""
    connection = op.get_bind()
    versions = sa.table(
        "versions",
        *(sa.column(name) for name in ("id", "task", "target", "target_sql_type", "result")),
        *(sa.column(name, sa.JSON()) for name in ("classes", "targets", "added")),
    )
    for row in connection.execute(sa.select(versions)).mappings().all():
        targets, result, added = _signature(dict(row))
        values = {"targets": targets, "result": result, "added": added}
        connection.execute(sa.update(versions).where(versions.c.id == row["id"]).values(values))


def _signature(row: dict[str, Any]) -> tuple[list[dict[str, Any]], str, list[list[str]]]:
    """``targets``, ``result`` and ``added`` of a row as it was."""
    if row["task"] == "clustering":
        distances = 'STRUCT("centroid_id" BIGINT, "distance" DOUBLE)[]'
        return [], "BIGINT", [["centroid_id", "BIGINT"], ["nearest_centroids_distance", distances]]
    classes = row["classes"] if not isinstance(row["classes"], str) else json.loads(row["classes"])
    target = {"name": row["target"], "sql_type": row["target_sql_type"], "task": row["task"], "classes": classes}
    predicted = f"predicted_{row['target']}"
    if row["task"] == "regression":
        return [target], "DOUBLE", [[predicted, "DOUBLE"]]
    kinds = {type(value) for value in classes}
    names = {bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE"}
    label = names.get(kinds.pop(), "VARCHAR") if len(kinds) == 1 else "VARCHAR"
    return [target], label, [[predicted, label], [f"{predicted}_probs", f'STRUCT("label" {label}, "prob" DOUBLE)[]']]
