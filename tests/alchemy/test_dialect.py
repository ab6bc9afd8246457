"""The dialect by hand: ORM, reflection, pandas, and our own statements between transactions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from sqlalchemy import Engine, ForeignKey, MetaData, String, create_engine, func, inspect, select, text
from sqlalchemy.dialects import registry
from sqlalchemy.exc import IntegrityError, NotSupportedError, ProgrammingError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

registry.register("sqlml", "sqlml.alchemy.dialect", "SqlmlDialect")


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(30), unique=True)
    age: Mapped[float | None]
    orders: Mapped[list[Order]] = relationship(back_populates="customer")


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
    customer: Mapped[Customer] = relationship(back_populates="orders")


@pytest.fixture(params=["memory", "file"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine("sqlml://" if request.param == "memory" else f"sqlml:///{tmp_path / 'shop.duckdb'}")
    yield engine
    engine.dispose()


def test_objects_come_and_go(engine: Engine) -> None:
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Customer(name=f"n{i}", age=i, orders=[Order(), Order()]) for i in range(20)])
        session.commit()
        assert session.scalar(select(func.count()).select_from(Order)) == 40
        [oldest] = session.scalars(select(Customer).where(Customer.age > 18)).all()
        assert [order.customer.name for order in oldest.orders] == ["n19", "n19"]
        oldest.age = None
        session.rollback()
        assert oldest.age == 19
        session.add(Customer(name="n1"))
        with pytest.raises(IntegrityError):
            session.commit()
    Base.metadata.drop_all(engine)
    assert inspect(engine).get_table_names() == inspect(engine).get_sequence_names() == []


def test_what_is_there_is_found(engine: Engine) -> None:
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(text("CREATE VIEW old AS SELECT * FROM customers WHERE age > 60"))
        connection.execute(text("CREATE TABLE odd (a STRUCT(x INTEGER), b INTEGER[], c DECIMAL(9, 2), d TIMESTAMPTZ, e UUID)"))
    found = inspect(engine)
    assert found.get_table_names() == ["customers", "odd", "orders"]
    assert found.get_view_names() == ["old"]
    assert found.get_pk_constraint("customers")["constrained_columns"] == ["id"]
    assert [(key["constrained_columns"], key["referred_table"]) for key in found.get_foreign_keys("orders")] == [
        (["customer_id"], "customers")
    ]
    types = {column["name"]: column["type"].compile(engine.dialect) for column in found.get_columns("odd")[1:]}
    assert types == {"b": "INTEGER[]", "c": "NUMERIC(9, 2)", "d": "TIMESTAMP WITH TIME ZONE", "e": "UUID"}
    metadata = MetaData()
    metadata.reflect(engine)
    assert set(metadata.tables) == {"customers", "orders", "odd"}


def test_pandas_reads_and_writes(engine: Engine) -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": [0.5, float("nan")]})
    frame.to_sql("frame", engine, index=False)
    back = pd.read_sql_table("frame", engine)
    pd.testing.assert_frame_equal(back, frame, check_dtype=False)
    assert pd.read_sql("SELECT sum(a) AS s FROM frame", engine)["s"].tolist() == [3]


def test_our_statements_need_no_transaction(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE t AS SELECT range AS x, range * 2.0 AS y FROM range(100)"))
        with pytest.raises(NotSupportedError, match="TRAIN cannot run inside an open transaction"):
            connection.execute(text("TRAIN MODEL m USING linear_regression TARGET y AS FROM t"))
        connection.commit()
        [row] = connection.execute(text("TRAIN MODEL m USING linear_regression TARGET y ON inline AS FROM t")).mappings()
        assert row["model"] == "m"
        found = connection.execute(text("SELECT PREDICT(m) FROM t WHERE x = :x"), {"x": 3}).scalar_one()
        assert found == pytest.approx(6, abs=1e-3)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("INSERT INTO t VALUES (1, 2)"))
        connection.execute(text("DROP MODEL m"))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM t")).scalar_one() == 101


TRAIN = "TRAIN MODEL m USING linear_regression TARGET y SPLIT NONE ON inline AS SELECT range AS x, 2 * range AS y FROM range(9)"


@pytest.mark.parametrize("statement", [TRAIN, "SELECT * FROM sqlml('" + TRAIN + "')"])
def test_pandas_trains(engine: Engine, statement: str) -> None:
    """``read_sql`` begins a transaction, and asks whether there is a table of that name, before it runs a text."""
    assert pd.read_sql(statement, engine)["model"].tolist() == ["m"]
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        assert pd.read_sql(statement, connection)["version"].tolist() == [2]
        connection.execute(text("CREATE TABLE undone (a INTEGER)"))
        connection.rollback()
        assert not inspect(connection).has_table("undone")
    assert pd.read_sql("SELECT PREDICT(m USING 3 AS x) AS p", engine)["p"].tolist() == pytest.approx([6])


def test_after_a_write_the_message_says_what_to_do(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE kept (a INTEGER)"))
        with pytest.raises(NotSupportedError, match=r"commit\(\) or rollback\(\) of the connection"):
            connection.execute(text(TRAIN))
    assert inspect(engine).has_table("kept")


def test_predictions_into_a_table_are_part_of_the_transaction(engine: Engine) -> None:
    pd.read_sql(TRAIN, engine)
    for keeps in (False, True):
        with engine.connect() as connection:
            connection.execute(text("PREDICT MODEL m INTO scores AS SELECT 1 AS x"))
            (connection.commit if keeps else connection.rollback)()
        assert inspect(engine).has_table("scores") is keeps


def test_errors_are_sqlalchemys_with_our_words(engine: Engine) -> None:
    with engine.connect() as connection, pytest.raises(ProgrammingError, match="does not exist"):
        connection.execute(text("SELECT * FROM nothing"))


def test_a_table_called_like_a_relation_of_ours(engine: Engine) -> None:
    class Other(DeclarativeBase):
        pass

    class Model(Other):
        __tablename__ = "models"
        id: Mapped[int] = mapped_column(primary_key=True)

    assert not inspect(engine).has_table("models")
    Other.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Model())
        session.commit()
        assert session.scalar(select(func.count()).select_from(Model)) == 1
    assert [column["name"] for column in inspect(engine).get_columns("models")] == ["id"]
