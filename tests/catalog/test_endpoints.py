"""Endpoints in the catalog: arms and their shares, changes, going back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import sqlml
from sqlml.catalog import Catalog, Share
from sqlml.catalog.shares import with_share
from sqlml.errors import BindError
from sqlml.rollout import Guard, guard_of


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three versions of one model, for copying only."""
    folder = tmp_path_factory.mktemp("versions")
    with sqlml.connect(folder / "bank.duckdb") as connection:
        connection.execute("CREATE TABLE t AS SELECT range AS x, range * 2.0 AS y FROM range(40)")
        for _ in range(3):
            connection.execute("TRAIN MODEL m USING linear_regression TARGET y ON inline AS SELECT * FROM t")
    return folder / "bank.sqlml"


@pytest.fixture
def catalog(trained: Path, tmp_path: Path) -> Iterator[Catalog]:
    """A copy of one's own."""
    shutil.copytree(trained, tmp_path / "bank.sqlml")
    catalog = Catalog.open(tmp_path / "bank.sqlml")
    yield catalog
    catalog.close()


def put(catalog: Catalog, *shares: tuple[int, int], **options: object) -> int:
    arms = [Share(catalog.resolve("m", version).uid, weight=weight) for version, weight in shares]
    return catalog.put_endpoint("Front", arms, options=options, reason="test")


def shares(catalog: Catalog) -> list[tuple[int, int]]:
    found = catalog.endpoint("front")
    assert found is not None
    return [(arm.version, arm.weight) for arm in found.arms]


def test_arms_keep_their_order_and_the_largest_is_the_main_one(catalog: Catalog) -> None:
    assert put(catalog, (1, 10), (3, 90), replicas=2) == 1
    [endpoint] = catalog.endpoints()
    assert shares(catalog) == [(1, 10), (3, 90)]
    assert (endpoint.name, endpoint.main.name, endpoint.options) == ("Front", "m@3", {"replicas": 2})
    assert catalog.deploy("front", catalog.resolve("m", 2)) == 2
    assert shares(catalog) == [(2, 100)]
    assert catalog.endpoints()[0].options == {"replicas": 2}


def test_rollback_goes_one_change_back_each_time(catalog: Catalog) -> None:
    put(catalog, (1, 100))
    put(catalog, (1, 50), (2, 50))
    put(catalog, (3, 100))
    assert catalog.rollback_endpoint("front") == 4
    assert shares(catalog) == [(1, 50), (2, 50)]
    assert catalog.rollback_endpoint("FRONT") == 5
    assert shares(catalog) == [(1, 100)]
    with pytest.raises(BindError, match="endpoint Front has no earlier state to go back to"):
        catalog.rollback_endpoint("front")
    put(catalog, (2, 100))
    catalog.rollback_endpoint("front")
    assert shares(catalog) == [(1, 100)]


def test_a_rollback_of_another_revision_does_nothing(catalog: Catalog) -> None:
    put(catalog, (1, 100))
    put(catalog, (2, 100))
    assert catalog.rollback_endpoint("front", of=1) == 2
    assert shares(catalog) == [(2, 100)]


def test_revisions_never_come_again(catalog: Catalog) -> None:
    assert put(catalog, (1, 100)) == 1
    catalog.undeploy("front")
    assert put(catalog, (2, 100)) == 3
    with pytest.raises(BindError, match="no earlier state"):  # what was there before UNDEPLOY is not to come back
        catalog.rollback_endpoint("front")


def test_a_dropped_version_cannot_come_back(catalog: Catalog) -> None:
    put(catalog, (1, 100))
    put(catalog, (2, 100))
    catalog.drop("m", 1, cascade=False)
    revision = catalog.endpoints_revision()
    with pytest.raises(BindError, match="was dropped meanwhile"):
        catalog.rollback_endpoint("front")
    assert (shares(catalog), catalog.endpoints_revision()) == ([(2, 100)], revision)


def test_a_version_with_any_share_is_not_dropped(catalog: Catalog) -> None:
    put(catalog, (1, 100), (2, 0))
    with pytest.raises(BindError, match="is deployed at the endpoint Front"):
        catalog.drop("m", 2, cascade=False)


def test_a_rollback_is_not_undone_and_is_not_what_another_goes_back_to(catalog: Catalog) -> None:
    for version in (1, 2, 3):
        put(catalog, (version, 100))
    catalog.rollback_endpoint("front")
    catalog.rollback_endpoint("front")

    def undone() -> list[tuple[int, bool]]:
        return [(change["revision"], change["undone"]) for change in catalog.endpoint_changes()]

    assert undone() == [(1, False), (2, True), (3, True), (4, False), (5, False)]
    assert [change["revision"] for change in catalog.endpoint_changes() if change["stands"]] == [1]
    with pytest.raises(BindError, match="no earlier state"):
        catalog.rollback_endpoint("front")
    put(catalog, (3, 100))
    assert catalog.rollback_endpoint("front") == 7
    assert (shares(catalog), undone()[5:]) == ([(1, 100)], [(6, True), (7, False)])
    catalog.undeploy("front")
    assert all(gone for _, gone in undone()[:-1])
    assert undone()[-1] == (8, False)


def test_changes_are_kept(catalog: Catalog) -> None:
    put(catalog, (1, 100))
    put(catalog, (2, 100))
    catalog.rollback_endpoint("front", "error rate 0.4 over 0.1")
    found = [(c["revision"], c["reason"], c["undone"]) for c in catalog.endpoint_changes()]
    assert found == [(1, "test", False), (2, "test", True), (3, "error rate 0.4 over 0.1", False)]
    assert all(c["owner"] and c["created_at"] for c in catalog.endpoint_changes())


def test_an_endpoint_is_as_old_as_its_first_deployment(catalog: Catalog) -> None:
    put(catalog, (1, 100))
    [first] = catalog.endpoints()
    put(catalog, (2, 100))
    catalog.rollback_endpoint("front")
    [later] = catalog.endpoints()
    assert first.changed_at is not None
    assert later.changed_at is not None
    assert first.created_at <= first.changed_at < later.changed_at
    assert (later.created_at, later.changed_at) == (first.created_at, catalog.endpoint_changes()[-1]["created_at"])
    catalog.undeploy("front")
    put(catalog, (1, 100))
    assert catalog.endpoints()[0].created_at > later.changed_at


def test_that_an_endpoint_went_is_a_change_too(catalog: Catalog) -> None:
    put(catalog, (1, 100))
    catalog.undeploy("FRONT")
    put(catalog, (2, 100))
    put(catalog, (3, 100))
    found = [(c["revision"], c["reason"], len(c["state"]["arms"]), c["stands"]) for c in catalog.endpoint_changes()]
    assert found == [(1, "test", 1, False), (2, "UNDEPLOY", 0, False), (3, "test", 1, True), (4, "test", 1, True)]
    catalog.rollback_endpoint("front")
    assert shares(catalog) == [(2, 100)]
    with pytest.raises(BindError, match="no earlier state"):
        catalog.rollback_endpoint("front")
    catalog.drop("m", None, cascade=True)
    assert [(c["endpoint"], c["reason"], c["undone"]) for c in catalog.endpoint_changes()][-1] == ("front", "DROP MODEL", False)


def test_a_change_of_what_was_changed_meanwhile_is_refused(catalog: Catalog) -> None:
    arms = [Share(catalog.resolve("m", 1).uid)]
    assert catalog.put_endpoint("front", arms, options={}, reason="test", of=0) == 1
    with pytest.raises(BindError, match="was changed by somebody else"):
        catalog.put_endpoint("front", arms, options={}, reason="test", of=0)
    assert catalog.put_endpoint("front", arms, options={}, reason="test", of=1) == 2


# --- versions that leave ----------------------------------------------------------------------------------------------


def test_what_else_an_endpoint_serves_goes_on_when_a_version_is_dropped(catalog: Catalog) -> None:
    put(catalog, (1, 60), (2, 30), (3, 10))
    catalog.drop("m", 1, cascade=True)
    assert shares(catalog) == [(2, 75), (3, 25)]
    assert catalog.endpoint_changes()[-1]["reason"] == "DROP MODEL"
    catalog.drop("m", 3, cascade=True)
    assert shares(catalog) == [(2, 100)]
    catalog.drop("m", 2, cascade=True)
    assert catalog.endpoints() == []


def test_an_endpoint_goes_with_its_model(catalog: Catalog) -> None:
    put(catalog, (1, 60), (2, 40))
    catalog.drop("m", None, cascade=True)
    assert catalog.endpoints() == []


# --- guarded roll-outs ------------------------------------------------------------------------------------------------


def try_out(catalog: Catalog, version: int, percent: int) -> int:
    endpoint = catalog.endpoint("front")
    assert endpoint is not None
    uid = catalog.resolve("m", version).uid
    options = {**endpoint.options, "rollout": Guard(uid, promote_after=10).to_json()}
    return catalog.put_endpoint("front", with_share(endpoint.shares, uid, percent), options=options, reason="DEPLOY")


def options(catalog: Catalog) -> dict[str, object]:
    endpoint = catalog.endpoint("front")
    assert endpoint is not None
    return dict(endpoint.options)


def test_promotion_gives_all_of_the_traffic_and_rollback_then_goes_to_what_was_before(catalog: Catalog) -> None:
    put(catalog, (1, 100))
    revision = try_out(catalog, 2, 10)
    assert guard_of(options(catalog)) is not None
    assert catalog.settle_endpoint("front", promote=True, reason="all well", of=revision) == revision + 1
    assert shares(catalog) == [(2, 100)]
    assert options(catalog) == {}
    assert catalog.settle_endpoint("front", promote=True, reason="again", of=revision + 1) is None
    catalog.rollback_endpoint("front")
    assert shares(catalog) == [(1, 100)]
    assert guard_of(options(catalog)) is None


def test_a_failed_roll_out_leaves_what_was_there(catalog: Catalog) -> None:
    put(catalog, (3, 100))
    put(catalog, (1, 70), (3, 30))
    first = try_out(catalog, 2, 10)
    second = try_out(catalog, 2, 40)
    assert catalog.settle_endpoint("front", promote=False, reason="too slow", of=first) is None
    catalog.settle_endpoint("front", promote=False, reason="too slow", of=second)
    assert shares(catalog) == [(1, 70), (3, 30)]
    assert catalog.endpoint_changes()[-1]["reason"] == "too slow"
    catalog.rollback_endpoint("front")
    assert shares(catalog) == [(3, 100)]


def test_the_others_take_over_where_what_was_before_is_no_more(catalog: Catalog) -> None:
    put(catalog, (1, 100))
    revision = try_out(catalog, 2, 10)
    uid = catalog.resolve("m", 2).uid
    arms = [Share(catalog.resolve("m", 3).uid, weight=60), Share(uid, weight=40)]
    revision = catalog.put_endpoint("front", arms, options=options(catalog), reason="test")
    catalog.drop("m", 1, cascade=False)
    catalog.settle_endpoint("front", promote=False, reason="too slow", of=revision)
    assert shares(catalog) == [(3, 100)]


def test_what_was_set_during_a_roll_out_stays(catalog: Catalog) -> None:
    put(catalog, (1, 100))
    try_out(catalog, 2, 10)
    endpoint = catalog.endpoint("front")
    assert endpoint is not None
    revision = catalog.put_endpoint("front", endpoint.shares, options={**endpoint.options, "replicas": 3}, reason="ALTER")
    catalog.settle_endpoint("front", promote=False, reason="too slow", of=revision)
    assert shares(catalog) == [(1, 100)]
    assert options(catalog) == {"replicas": 3}


def test_the_first_version_of_an_endpoint_has_nothing_to_go_back_to(catalog: Catalog) -> None:
    uid = catalog.resolve("m", 1).uid
    guard = {"rollout": Guard(uid, max_error_rate=0.1).to_json()}
    revision = catalog.put_endpoint("front", [Share(uid)], options=guard, reason="DEPLOY")
    with pytest.raises(BindError, match="no other version to go back to"):
        catalog.settle_endpoint("front", promote=False, reason="fails", of=revision)
    assert shares(catalog) == [(1, 100)]


def test_a_roll_out_ends_with_its_version(catalog: Catalog) -> None:
    put(catalog, (1, 100))
    try_out(catalog, 2, 10)
    catalog.drop("m", 2, cascade=True)
    assert shares(catalog) == [(1, 100)]
    assert options(catalog) == {}
