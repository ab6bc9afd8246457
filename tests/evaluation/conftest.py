"""Four public data sets with models of every kind, trained once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import sqlml
from sqlml.data import sample

DATA = Path(__file__).parents[1] / "fixtures" / "data"
TABLES = (
    f"CREATE TABLE bank AS SELECT * EXCLUDE (y), row_number() OVER () AS id, CASE WHEN y THEN 'yes' ELSE 'no' END AS deposit "
    f"FROM read_csv('{sample('bank_marketing')}') QUALIFY id % 15 = 0",
    f"CREATE TABLE adult AS SELECT *, row_number() OVER () AS id FROM read_csv('{DATA / 'adult.csv.gz'}')",
    f"CREATE TABLE bike AS SELECT * RENAME (\"count\" AS rides) FROM read_csv('{DATA / 'bike.csv.gz'}')",
    "CREATE TABLE sms AS SELECT label, length(text) AS size, len(regexp_extract_all(text, '[0-9]')) AS digits, "
    "len(regexp_extract_all(text, '[A-Z]')) AS capitals, contains(lower(text), 'free') AS free, contains(text, '!') AS loud "
    f"FROM read_csv('{DATA / 'sms.csv.gz'}')",
)
BIKE = "season, month, hour, holiday, weekday, workingday, weathersit, temp, humidity, windspeed"
MODELS = (
    "TRAIN MODEL bank_trees USING xgboost_classifier TARGET deposit EXCLUDE (id) KEY housing, job WITH (n_estimators = 12) "
    "ON inline AS FROM bank",
    "TRAIN MODEL adult_linear USING logistic_regression TARGET income EXCLUDE (fnlwgt) KEY id, sex WEIGHT hours_per_week "
    "ON inline AS FROM adult",
    "TRAIN MODEL adult_many USING xgboost_classifier TARGET relationship EXCLUDE (id, fnlwgt) "
    "WITH (n_estimators = 5) ON inline AS FROM adult",
    f"TRAIN MODEL bike_trees USING xgboost_regressor TARGET rides WITH (n_estimators = 15) ON inline "
    f"AS SELECT {BIKE}, rides FROM bike",
    f"TRAIN MODEL bike_linear USING linear_regression TARGET rides ON inline AS SELECT {BIKE}, CAST(season AS VARCHAR) "
    "AS quarter, NULLIF(weekday, 3) AS gap, rides FROM bike",
    "TRAIN MODEL sms_linear USING logistic_regression TARGET label ON inline AS FROM sms",
    "TRAIN MODEL sms_groups USING kmeans WITH (n_clusters = 3) ON inline AS SELECT size, digits, capitals, loud FROM sms",
)


@pytest.fixture(scope="session")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlml.Connection]:
    """A connection with all of them; nothing may be changed in it."""
    folder = tmp_path_factory.mktemp("studied")
    with sqlml.connect(folder / "studied.duckdb") as connection:
        for statement in TABLES:
            connection.execute(statement)
        for statement in MODELS:
            connection.execute(statement)
        yield connection
