"""What CREATE RUNNER … TYPE kubernetes takes, and what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sqlml.connections import OptionFault
from sqlml.contracts import OptionSpec

OPTIONS = (
    OptionSpec("image", "str", None, "an image with sqlml and what the algorithms need; must be given"),
    OptionSpec(
        "staging",
        "str",
        None,
        "where rows and results are exchanged: a place that fsspec knows, as 's3://bucket/folder', or the folder at which "
        "the volume claim is mounted here; must be given",
    ),
    OptionSpec("claim", "str", None, "the volume claim that is mounted here at the folder staging"),
    OptionSpec("mount", "str", None, "where the pods mount the claim; left out: at the same folder as here"),
    OptionSpec("namespace", "str", "default", "the namespace of the jobs"),
    OptionSpec("kubeconfig", "str", None, "the file that tells how to reach the cluster; left out: kubectl's, or the pod's own"),
    OptionSpec("context", "str", None, "which of the file's contexts; left out: its current one"),
    OptionSpec("cpu", "float", 1.0, "the cores that a job asks for", low=0.1),
    OptionSpec("memory", "size", 2 * 10**9, "the memory that a job without a limit of its own asks for, and may have", low=2**26),
    OptionSpec("gpu", "int", None, "the GPUs that a job asks for", low=1),
    OptionSpec("gpu_resource", "str", "nvidia.com/gpu", "what the cluster calls a GPU"),
    OptionSpec("time", "duration", None, "how long a job without a limit of its own may run: '30 min'", low=0, open_low=True),
    OptionSpec("patience", "duration", 600.0, "how long a job may wait for a place and for its image", low=0, open_low=True),
    OptionSpec("secret_name", "str", None, "a secret of the cluster whose entries the pods get as environment variables"),
    OptionSpec("pull_secret_name", "str", None, "the secret with which the image is pulled"),
    OptionSpec("service_account", "str", None, "the service account of the pods"),
    OptionSpec("node_selector", "struct", None, "labels of the nodes that may be taken: {'disk': 'ssd'}"),
)
"""The options of a runner."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_NAMES = ("claim", "namespace", "secret_name", "pull_secret_name", "service_account")
_RESOURCE = re.compile(r"[a-z0-9]([a-z0-9.-]{0,200}[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]{0,60}[A-Za-z0-9])?")
_LABEL = re.compile(r"[A-Za-z0-9./_-]{1,253}")


def settings_fault(options: Mapping[str, Any]) -> OptionFault | None:
    """What is wrong with the options together; None where nothing is."""
    if not options.get("image"):
        return OptionFault(None, "a runner of type kubernetes needs an image", "as in image = 'registry.example/team/sqlml:1'")
    if not options.get("staging"):
        hint = "as in staging = 's3://bucket/sqlml', or a folder with claim = 'the-volume-claim' that is mounted there"
        return OptionFault(None, "a runner of type kubernetes needs a place where rows and results are exchanged: staging", hint)
    for name in _NAMES:
        if options.get(name) and not _NAME.fullmatch(options[name]):
            hint = "small letters, digits, dashes and dots, with a letter or digit at both ends"
            return OptionFault(name, f"'{options[name]}' cannot be a name in Kubernetes", hint)
    if options.get("gpu_resource") and not _RESOURCE.fullmatch(options["gpu_resource"]):
        return OptionFault("gpu_resource", "this is no name of a resource", "as in gpu_resource = 'amd.com/gpu'")
    wrong = [f"{k}: {v}" for k, v in (options.get("node_selector") or {}).items() if not _is_label(k) or not _is_label(v)]
    if wrong:
        return OptionFault("node_selector", f"{wrong[0]} is no label of a node", "as in node_selector = {'disk': 'ssd'}")
    return _staging_fault(options)


def _staging_fault(options: Mapping[str, Any]) -> OptionFault | None:
    staging, claim = options["staging"], options.get("claim")
    if "://" in staging:
        wrong = next((name for name in ("claim", "mount") if options.get(name)), None)
        hint = f"leave out {wrong}, or give the folder that the claim is mounted at here as staging"
        return OptionFault(wrong, "a volume claim goes with a folder, not with a URL", hint) if wrong else None
    if not staging.startswith("/"):
        return OptionFault("staging", "the folder must be absolute", "as in staging = '/mnt/shared/sqlml'")
    if not claim:
        hint = "claim = 'the-volume-claim' that is mounted there, or staging = 's3://bucket/folder'"
        return OptionFault("staging", f"the pods do not see this machine's folder {staging}", hint)
    if options.get("mount") and not options["mount"].startswith("/"):
        return OptionFault("mount", "the folder must be absolute", "as in mount = '/mnt/shared'")
    return None


def _is_label(value: Any) -> bool:
    return isinstance(value, str) and _LABEL.fullmatch(value) is not None
