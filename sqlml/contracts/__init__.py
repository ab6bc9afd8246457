"""The seams: what an algorithm, a runner, an engine and a target must do, and no more.

Each is a Protocol with few methods.  An implementation is reached by name through ``sqlml.registry``; the contract kits in
``tests/kits`` check one by being given it.
"""

from sqlml.contracts.algorithms import Algorithm, FeatureMatrix, FitSpec, Predictor, Report, TrainingData
from sqlml.contracts.endpoints import ArmState, EndpointServer, EndpointState
from sqlml.contracts.engines import (
    Engine,
    ExactEngine,
    FewRows,
    FunctionEngine,
    HomeEngine,
    ProgressEngine,
    Stream,
    TellingEngine,
    WritableEngine,
)
from sqlml.contracts.options import OptionSpec
from sqlml.contracts.runners import Event, Follow, JobHandle, Notice, OnEvent, PrestartRunner, Resources, Runner, SessionRunner
from sqlml.contracts.targets import UNFIT, FunctionSignature, Installer, RowModel, StoredFunction, Target, UnfitArgument

__all__ = [
    "UNFIT",
    "Algorithm",
    "ArmState",
    "EndpointServer",
    "EndpointState",
    "Engine",
    "Event",
    "ExactEngine",
    "FeatureMatrix",
    "FewRows",
    "FitSpec",
    "Follow",
    "FunctionEngine",
    "FunctionSignature",
    "HomeEngine",
    "Installer",
    "JobHandle",
    "Notice",
    "OnEvent",
    "OptionSpec",
    "Predictor",
    "PrestartRunner",
    "ProgressEngine",
    "Report",
    "Resources",
    "RowModel",
    "Runner",
    "SessionRunner",
    "StoredFunction",
    "Stream",
    "Target",
    "TellingEngine",
    "TrainingData",
    "UnfitArgument",
    "WritableEngine",
]
