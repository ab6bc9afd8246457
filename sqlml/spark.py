"""Models as functions of a Spark session: ``sqlml.spark.register(spark, "churn")``, then ``SELECT churn(*) FROM customers``.

What works where:

    spark.sql(…) of the session that was registered with     churn(*), churn(c.*), churn(age, job), churn(age => …),
                                                             `churn@3`(*), PREDICT(churn …), PREDICT_PROBA(churn, 'yes'), …
    views, DataFrames, expr(…), any other SQL of the session   churn(*), churn(c.*), churn(struct(*)), churn(age, job), churn()
    the same behind Spark Connect                            churn(struct(*)), churn(age, job), churn(age => …)

The functions are temporary: other sessions do not see them, nor can permanent views call them.  The workers need sqlml with the
models' libraries.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlml.address import EXAMPLE
from sqlml.catalog import Catalog, Version
from sqlml.catalog.database import absolute_url
from sqlml.errors import BindError, OperationalError, listing
from sqlml.home import CATALOG_VARIABLE, IN_DATABASE, SUFFIX, catalog_url, home_of, without_password
from sqlml.spark_common.session import is_connect
from sqlml.spark_queries import Source, functions_of

__all__ = ["register", "unregister"]


def register(
    spark: Any,
    model: str,
    *,
    name: str | None = None,
    database: str | os.PathLike[str] | None = None,
    catalog: str | None = None,
    path: str | os.PathLike[str] | None = None,
) -> str:
    """Make a model a function of a Spark session, under its own name or ``name``; the version that it now is: ``churn@3``.

    ``model`` is a name, ``churn@3`` or ``churn@alias``.  A version is pinned: registering again takes the newest, also for
    temporary views that call it.  ``database`` is the DuckDB file or PostgreSQL URL whose models are meant: only the catalog
    beside it is opened, so another process may hold it.  Without, the one ``*.sqlml`` folder here is taken.  ``catalog`` is the
    catalog's URL where it lies elsewhere (or the variable SQLML_CATALOG), or ``"database"`` as for ``sqlml.connect``.  ``path``
    takes a bundle's folder in place of both.
    """
    _check_session(spark)
    source = _bundle_source(Path(path), model) if path is not None else _catalog_source(database, catalog)
    reference, _, suffix = model.partition("@")
    found = source(reference, suffix or None)
    return functions_of(spark).add(name or model, found, source).name


def unregister(spark: Any, name: str) -> None:
    """Take a function away again.  ``BindError`` where there is none of the name."""
    _check_session(spark)
    functions_of(spark).remove(name)


def registered(spark: Any) -> dict[str, str]:
    """The functions of a session and the versions that they are: ``{"churn": "churn@3"}``."""
    _check_session(spark)
    return functions_of(spark).versions()


def _check_session(spark: Any) -> None:
    if not (hasattr(spark, "udf") and hasattr(spark, "sql")):
        raise BindError(
            f"the first argument is a SparkSession (got {type(spark).__name__})", hint='sqlml.spark.register(spark, "churn")'
        )
    if not is_connect(spark) and spark.sparkContext._jsc is None:
        raise OperationalError("the Spark session has been stopped", hint="begin a new one and register with that")


# --- where models come from -------------------------------------------------------------------------------------------


def _catalog_source(database: str | os.PathLike[str] | None, catalog: str | None) -> Source:
    given = catalog or os.environ.get(CATALOG_VARIABLE)
    text = "" if database is None else os.fspath(database)
    if given == IN_DATABASE and "://" not in text:
        raise BindError(
            f"catalog={IN_DATABASE!r} is for the models of a PostgreSQL server", hint=f"name it, too: database={EXAMPLE!r}"
        )
    url = absolute_url(given) if given and given != IN_DATABASE else catalog_url(text, given)
    folder = _home(database, given if given == IN_DATABASE else url)

    def find(model: str, suffix: str | None) -> Version:
        opened = Catalog.open(folder, url)
        try:
            number = int(suffix) if suffix and suffix.isascii() and suffix.isdecimal() else None
            return opened.resolve(model, number, suffix if number is None else None)
        finally:
            opened.close()

    return find


def _home(database: str | os.PathLike[str] | None, url: str | None) -> Path:
    """The models' folder.  ``OperationalError`` where there is none, or no telling which."""
    if database is None:
        return _home_here(url)
    text = os.fspath(database)
    folder = Path(text).absolute() if text.endswith(SUFFIX) else home_of(text, url)
    if not _is_home(folder, url):
        raise OperationalError(
            f"no models lie beside {without_password(text)}: there is no {folder}",
            hint="database is the file that sqlml.connect() was given",
        )
    return folder


def _home_here(url: str | None) -> Path:
    homes = sorted(folder for folder in Path.cwd().glob(f"*{SUFFIX}") if folder.is_dir())
    folders = [home if url is None else home_of(home.with_suffix(".duckdb"), url) for home in homes]
    found = [folder for folder in folders if _is_home(folder, url)]
    if len(found) == 1:
        return found[0]
    names = listing(f"'{home.with_suffix('.duckdb').name}'" for home in homes)
    raise OperationalError(
        f"which database's models? In {Path.cwd()} there are several: {names}"
        if found
        else f"which database's models? In {Path.cwd()} there is no *{SUFFIX} folder with a catalog",
        hint='sqlml.spark.register(spark, "churn", database="bank.duckdb")',
    )


def _is_home(folder: Path, url: str | None) -> bool:
    return folder.is_dir() if url is not None else (folder / "catalog.db").is_file()


def _bundle_source(folder: Path, name: str) -> Source:
    from sqlml.bundles.model import Model

    model = Model.open(folder)
    version = _version_of(model, name.partition("@")[0])

    def find(asked: str, suffix: str | None) -> Version:
        if suffix is not None and asked.lower() == version.model.lower():
            raise BindError(
                f"{asked} was registered from a bundle, which is one version", hint=f"write {asked}, without @{suffix}"
            )
        return version

    return find


def _version_of(model: Any, name: str) -> Version:
    """A bundle as a version that no catalog knows."""
    from sqlml.bundles.manifest import MANIFEST, file_sha256

    heads = model.manifest.heads
    sha256 = file_sha256(model.folder / MANIFEST)
    return Version(
        uid=sha256[:32], model=name, version=1, algorithm=heads[0].algorithm if heads else "transform_only", task=model.task,
        targets=tuple(head.target for head in heads if head.target is not None), key=(), inputs=model.inputs,
        result=model.signature.result, added=model.signature.added, bundle=model.folder, sha256=sha256, job_id=0, statement="",
        split="", heldout_rows=0, rows=0, example=model.manifest.example, origin=str(model.folder),
    )  # fmt: skip
