"""What is done for each statement of ours, by area.  An area's module is loaded when the first of its statements comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlml_dialect import (
    AlterApiKey,
    AlterEndpoint,
    AlterEndpoints,
    AlterModel,
    CancelJob,
    CompareModels,
    CreateApiKey,
    CreateResource,
    Deploy,
    DeployFunction,
    DeployQuery,
    DescribeModel,
    DropApiKey,
    DropModel,
    DropResource,
    Evaluate,
    EvaluateEndpoint,
    ExplainModel,
    ExplainPlan,
    Export,
    ExportEndpoint,
    Import,
    Node,
    Predict,
    RefreshEndpoint,
    RollbackEndpoint,
    RotateApiKey,
    Show,
    ShowCreateModel,
    ShowLogs,
    Train,
    Undeploy,
    UndeployFunction,
)

from sqlml.statements.handler import Handler, Handlers

if TYPE_CHECKING:
    from sqlml.catalog import Catalog, DatabaseFunction
    from sqlml.contracts import EndpointServer, Follow, HomeEngine, Notice, OnEvent
    from sqlml.statements.deploy import Serving
    from sqlml.statements.places import Places
    from sqlml.statements.plans import Watched
    from sqlml.statements.queries import Queries


@dataclass
class Areas(Mapping[type, Handler]):
    """The table from node to handler of one session.  A statement that is in no area belongs to a later version.

    ``watched`` runs a statement and lets somebody see its events; ``schema`` is the name of our schema in the database.
    """

    queries: Queries
    catalog: Catalog
    places: Places
    home: HomeEngine
    server: EndpointServer
    schema: str
    on_event: OnEvent
    follow: Follow
    notice: Notice
    interrupted: Callable[[], bool]
    watched: Watched
    _loaded: dict[type, Handler] = field(default_factory=dict, init=False)

    def __getitem__(self, node: type) -> Handler:
        if node not in self._loaded:
            self._loaded.update(_AREAS[node](self))
        return self._loaded[node]

    def __iter__(self) -> Iterator[type]:
        return iter(_AREAS)

    def __len__(self) -> int:
        return len(_AREAS)

    def writes(self, node: Node) -> bool:
        """Whether a statement writes to the catalog."""
        handler = self.get(type(node))
        return handler is not None and bool(handler.writes(node))

    @property
    def serving(self) -> Serving:
        """What statements about endpoints work with."""
        from sqlml.statements.deploy import Serving

        return Serving(self.catalog, self.server, self.on_event, self.notice, self.interrupted)

    def views_calling(self, model: str) -> list[str]:
        """The views of the database that call a model."""
        from sqlml.statements.models import views_calling

        return views_calling(self.home, self.schema, model)

    def remove(self, function: DatabaseFunction) -> None:
        """Remove a function of a database for CASCADE."""
        from sqlml.statements.database_functions import remove_or_forget

        remove_or_forget(function, self.catalog, self.places.engine, self.notice)


def _train(areas: Areas) -> Handlers:
    from sqlml.statements.jobs import train_handlers

    return train_handlers(areas.queries, areas.catalog, areas.on_event, areas.follow, areas.interrupted)


def _evaluate(areas: Areas) -> Handlers:
    from sqlml.statements.evaluate import evaluate_handlers

    return evaluate_handlers(areas.queries, areas.catalog, areas.on_event, areas.follow)


def _compare(areas: Areas) -> Handlers:
    from sqlml.statements.compare import compare_handlers

    return compare_handlers(areas.queries, areas.catalog, areas.notice)


def _predict(areas: Areas) -> Handlers:
    from sqlml.statements.predict_job import predict_handlers

    return predict_handlers(areas.queries, areas.catalog, areas.on_event, areas.follow)


def _explain(areas: Areas) -> Handlers:
    from sqlml.statements.explain import explain_handlers

    return explain_handlers(areas.queries, areas.catalog)


def _plans(areas: Areas) -> Handlers:
    from sqlml.statements.plans import plan_handlers

    return plan_handlers(areas.queries, areas.catalog, areas.views_calling, areas.watched, areas.writes)


def _endpoints(areas: Areas) -> Handlers:
    from sqlml.statements.deploy import endpoint_handlers

    return endpoint_handlers(areas.serving)


def _query_endpoints(areas: Areas) -> Handlers:
    from sqlml.statements.deploy_query import query_handlers

    return query_handlers(areas.serving, areas.queries)


def _keys(areas: Areas) -> Handlers:
    from sqlml.statements.api_keys import key_handlers

    return key_handlers(areas.serving)


def _live(areas: Areas) -> Handlers:
    from sqlml.statements.evaluate_endpoint import evaluate_endpoint_handlers

    return evaluate_endpoint_handlers(areas.catalog, areas.server)


def _functions(areas: Areas) -> Handlers:
    from sqlml.statements.database_functions import function_handlers

    return function_handlers(areas.catalog, areas.places.engine, areas.notice)


def _show(areas: Areas) -> Handlers:
    from sqlml.statements.show import show_handlers

    return show_handlers(areas.queries, areas.catalog, areas.schema)


def _models(areas: Areas) -> Handlers:
    from sqlml.statements.models import model_handlers

    return model_handlers(areas.catalog, areas.views_calling, areas.remove, areas.notice)


def _resources(areas: Areas) -> Handlers:
    from sqlml.statements.resources import resource_handlers

    return resource_handlers(areas.catalog, areas.home, areas.schema, areas.places.forget, areas.remove, areas.notice)


def _files(areas: Areas) -> Handlers:
    from sqlml.statements.export import file_handlers

    return file_handlers(areas.catalog, areas.on_event)


_AREAS: dict[type, Callable[[Areas], Handlers]] = {
    **dict.fromkeys((Train, CancelJob), _train),
    **dict.fromkeys((Evaluate,), _evaluate),
    **dict.fromkeys((CompareModels,), _compare),
    **dict.fromkeys((Predict,), _predict),
    **dict.fromkeys((ExplainModel,), _explain),
    **dict.fromkeys((ExplainPlan,), _plans),
    **dict.fromkeys((Deploy, Undeploy, AlterEndpoint, AlterEndpoints, RollbackEndpoint), _endpoints),
    **dict.fromkeys((DeployQuery, RefreshEndpoint), _query_endpoints),
    **dict.fromkeys((CreateApiKey, RotateApiKey, AlterApiKey, DropApiKey), _keys),
    **dict.fromkeys((EvaluateEndpoint,), _live),
    **dict.fromkeys((DeployFunction, UndeployFunction), _functions),
    **dict.fromkeys((Show, ShowLogs, ShowCreateModel, DescribeModel), _show),
    **dict.fromkeys((AlterModel, DropModel), _models),
    **dict.fromkeys((CreateResource, DropResource), _resources),
    **dict.fromkeys((Export, ExportEndpoint, Import), _files),
}
