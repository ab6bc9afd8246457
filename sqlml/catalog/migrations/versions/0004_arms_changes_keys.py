"""Endpoints with several versions behind them, their changes, API keys."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "endpoint_changes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("state", sa.JSON(), nullable=False),
        sa.Column("undone", sa.Boolean(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_endpoint_changes")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("hashes", sa.JSON(), nullable=False),
        sa.Column("prefix", sa.String(), nullable=False),
        sa.Column("endpoints", sa.JSON(), nullable=False),
        sa.Column("rate_limit", sa.Float(), nullable=True),
        sa.Column("expires_at", sa.DateTime(), nullable=True),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("key", name=op.f("uq_api_keys_key")),
    )
    _move_endpoints()


def _move_endpoints() -> None:
    """Each endpoint had one version with all of the traffic.  The table is made anew: SQLite drops no column that refers."""
    connection = op.get_bind()
    old = sa.table("endpoints", *map(sa.column, ("id", "name", "key", "version_id", "owner", "created_at")))
    rows = [dict(row) for row in connection.execute(sa.select(old)).mappings()]
    versions = sa.table("versions", sa.column("id"), sa.column("uid"))
    uids = {row.id: row.uid for row in connection.execute(sa.select(versions))}
    op.drop_table("endpoints")
    new = op.create_table(
        "endpoints",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False, server_default="model"),
        sa.Column("options", sa.JSON(), nullable=False, server_default="{}"),
        sa.Column("definition", sa.JSON(), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_endpoints")),
        sa.UniqueConstraint("key", name=op.f("uq_endpoints_key")),
    )
    op.create_table(
        "arms",
        sa.Column("endpoint_id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["endpoint_id"], ["endpoints.id"], name=op.f("fk_arms_endpoint_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_arms_version_id")),
        sa.PrimaryKeyConstraint("endpoint_id", "version_id", name=op.f("pk_arms")),
    )
    arms = sa.table("arms", *map(sa.column, ("endpoint_id", "version_id", "position", "role", "weight")))
    changes = sa.table(
        "endpoint_changes",
        *map(sa.column, ("endpoint", "revision", "reason", "undone", "owner", "created_at")),
        sa.column("state", sa.JSON()),
    )
    for row in rows:
        version = row.pop("version_id")
        connection.execute(sa.insert(new).values(**row, kind="model", options={}, revision=1))
        arm = {"endpoint_id": row["id"], "version_id": version, "position": 1, "role": "serves", "weight": 100}
        connection.execute(sa.insert(arms).values(arm))
        state: dict[str, Any] = {"kind": "model", "options": {}, "definition": None, "arms": [[uids[version], "serves", 100]]}
        change = {"endpoint": row["key"], "revision": 1, "reason": "DEPLOY", "state": state, "undone": False}
        change |= {"owner": row["owner"], "created_at": row["created_at"]}
        connection.execute(sa.insert(changes).values(change))
