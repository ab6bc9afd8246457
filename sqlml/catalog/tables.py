"""The catalog's tables.  ``migrations/`` brings an older catalog to this form; a test compares the two."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

models = Table(
    "models",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False),  # as first written
    Column("key", String, nullable=False, unique=True),  # lower case: names ignore case
    Column("comment", Text),
    Column("last_version", Integer, nullable=False),  # numbers are never used twice, also after a version was dropped
    Column("owner", String, nullable=False),
    Column("created_at", DateTime, nullable=False),  # all times are UTC
)

versions = Table(
    "versions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uid", String, nullable=False, unique=True),  # names the SQL function; never used twice
    Column("model_id", ForeignKey("models.id", ondelete="CASCADE"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("job_id", Integer, nullable=False),
    Column("algorithm", String, nullable=False),
    Column("task", String, nullable=False),
    Column("target", String),  # several: the first
    Column("targets", JSON, nullable=False),  # name, sql_type, task, classes (in the order of the probabilities) of each
    Column("key_columns", JSON, nullable=False),
    Column("result", Text, nullable=False),  # the SQL type of PREDICT
    Column("added", JSON, nullable=False),  # (name, SQL type) of each column that PREDICT MODEL adds
    Column("transform", JSON, nullable=False),  # name, kind, sql and state of each column that TRANSFORM makes
    Column("feature_info", JSON, nullable=False),  # the rows of ML.FEATURE_INFO
    Column("plan", JSON),  # TrainPlan; None: made before plans were kept
    Column("origin", Text),  # where an imported version came from
    Column("comment", Text),
    Column("example", JSON, nullable=False),  # one row of inputs
    Column("statement", Text, nullable=False),
    Column("parameters", JSON, nullable=False),  # values of prepared parameters, as text
    Column("query", Text, nullable=False),
    Column("options", JSON, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("split", String, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("heldout_rows", BigInteger, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("duration", Float, nullable=False),  # seconds
    Column("peak_memory", BigInteger, nullable=False),  # bytes
    Column("peak_gpu_memory", BigInteger, nullable=False, server_default="0"),  # bytes; 0: no GPU was used
    Column("libraries", JSON, nullable=False),
    Column("host", String, nullable=False),
    Column("bundle_sha256", String, nullable=False),  # also the name of its folder
    Column("notes", JSON, nullable=False),
    Column("owner", String, nullable=False),
    Column("created_at", DateTime, nullable=False),
    UniqueConstraint("model_id", "version"),
)

inputs = Table(
    "inputs",
    metadata,
    Column("version_id", ForeignKey("versions.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("name", String, nullable=False),
    Column("sql_type", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("encoding", Text, nullable=False),  # what is done to it, for people
)

metrics = Table(
    "metrics",
    metadata,
    Column("version_id", ForeignKey("versions.id", ondelete="CASCADE"), primary_key=True),
    Column("split", String, primary_key=True),  # train, heldout
    Column("metric", String, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("value", Float),
)

curves = Table(
    "curves",
    metadata,
    Column("version_id", ForeignKey("versions.id", ondelete="CASCADE"), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("split", String, primary_key=True),
    Column("metric", String, primary_key=True),
    Column("value", Float, nullable=False),
)

trials = Table(
    "trials",
    metadata,
    Column("version_id", ForeignKey("versions.id", name="fk_trials_version_id_versions", ondelete="CASCADE"), primary_key=True),
    Column("trial", Integer, primary_key=True),
    Column("options", JSON, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("seconds", Float),
    Column("state", String, nullable=False),  # done, failed, pruned
    Column("chosen", Boolean, nullable=False),
)

tags = Table(
    "tags",
    metadata,
    Column("model_id", ForeignKey("models.id", name="fk_tags_model_id_models", ondelete="CASCADE"), primary_key=True),
    Column("version", Integer, primary_key=True),  # 0: the model's own
    Column("tag", String, primary_key=True),  # lower case
    Column("value", Text, nullable=False),
    Column("owner", String, nullable=False),
    Column("created_at", DateTime, nullable=False),
)

aliases = Table(
    "aliases",
    metadata,
    Column("model_id", ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("alias", String, primary_key=True),  # lower case
    Column("version", Integer, nullable=False),
    Column("owner", String, nullable=False),
    Column("created_at", DateTime, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String, nullable=False),  # train
    Column("model", String, nullable=False),
    Column("version", Integer),  # the version that came of it
    Column("state", String, nullable=False),  # running, done, failed, cancelled, lost
    Column("runner", String, nullable=False),
    Column("statement", Text, nullable=False),
    Column("error", Text),
    Column("host", String, nullable=False),
    Column("owner_pid", Integer, nullable=False),  # the process that follows the job, with its start time
    Column("owner_started", Float, nullable=False),
    Column("owner", String, nullable=False),
    Column("created_at", DateTime, nullable=False),
    Column("finished_at", DateTime),
    sqlite_autoincrement=True,
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False),
    Column("key", String, nullable=False, unique=True),
    Column("kind", String, nullable=False, server_default="model"),  # model, query
    Column("options", JSON, nullable=False, server_default="{}"),  # of DEPLOY … WITH, checked
    Column("definition", JSON),  # what a query's endpoint computes; None: of a model
    Column("revision", Integer, nullable=False, server_default="1"),  # grows with each change, also over UNDEPLOY
    Column("owner", String, nullable=False),
    Column("created_at", DateTime, nullable=False),
)

arms = Table(
    "arms",
    metadata,
    Column("endpoint_id", ForeignKey("endpoints.id", ondelete="CASCADE"), primary_key=True),
    Column("version_id", ForeignKey("versions.id"), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("role", String, nullable=False),  # serves, shadow; part: one of a query's models
    Column("weight", Integer, nullable=False),  # percent of the traffic
)

endpoint_changes = Table(
    "endpoint_changes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("endpoint", String, nullable=False),  # its name in lower case: the changes outlive it
    Column("revision", Integer, nullable=False),  # that the change led to
    Column("reason", Text, nullable=False),  # the statement's name, or why the server did it by itself
    Column("state", JSON, nullable=False),  # kind, options, definition, arms after the change
    Column("undone", Boolean, nullable=False),  # rolled back since, or the endpoint is gone: ROLLBACK goes to what was before
    Column("owner", String, nullable=False),
    Column("created_at", DateTime, nullable=False),
    sqlite_autoincrement=True,
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False),
    Column("key", String, nullable=False, unique=True),  # the name in lower case
    Column("hashes", JSON, nullable=False),  # SHA-256 of each secret that is valid, with its end (None: none); never a secret
    Column("prefix", String, nullable=False),  # the first letters of the newest secret, to tell keys apart
    Column("endpoints", JSON, nullable=False),  # names in lower case; empty: every endpoint
    Column("rate_limit", Float),  # requests per second; None: no limit
    Column("expires_at", DateTime),
    Column("owner", String, nullable=False),
    Column("created_at", DateTime, nullable=False),
)

connections = Table(
    "connections",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False),
    Column("key", String, nullable=False, unique=True),
    Column("type", String, nullable=False),  # postgres, sqlalchemy, spark
    Column("options", JSON, nullable=False),  # never a secret: the name of the variable or file that has it
    Column("owner", String, nullable=False),
    Column("created_at", DateTime, nullable=False),
)

runners = Table(
    "runners",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False),
    Column("key", String, nullable=False, unique=True),
    Column("type", String, nullable=False),  # process, spark, or one of another package
    Column("options", JSON, nullable=False),
    Column("owner", String, nullable=False),
    Column("created_at", DateTime, nullable=False),
)

functions = Table(
    "functions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("connection", String),  # the connection's name in lower case; None: the home's own database
    Column("schema", String, nullable=False),
    Column("name", String, nullable=False),  # as the database has it
    Column("key", String, nullable=False, unique=True),  # connection, schema and name
    Column("version_id", ForeignKey("versions.id"), nullable=False),
    Column("outputs", JSON, nullable=False),  # a call of each function that was installed
    Column("owner", String, nullable=False),
    Column("created_at", DateTime, nullable=False),
)

counters = Table(
    "counters",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""``endpoints_revision`` counts changes of endpoints, ``models_revision`` of what names mean: one number to poll.  Others: see
``counters``.
"""
