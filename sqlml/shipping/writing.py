"""A shipment as a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sqlml.home import rows_url
from sqlml.shipping.image import write_image
from sqlml.shipping.kserve import kserve_files
from sqlml.shipping.kubernetes import kubernetes_files
from sqlml.shipping.pods import Object
from sqlml.shipping.shipment import Shipment

IMAGE = "image"
"""The folder of the image's context, where there is more than that."""


def manifest_files(shipment: Shipment) -> Mapping[str, list[Object]]:
    """The objects of a cluster, by the file that holds them; none for an image alone."""
    makers = {"kubernetes": kubernetes_files, "kserve": kserve_files}
    return makers[shipment.format](shipment) if shipment.format in makers else {}


def write_shipment(shipment: Shipment, folder: Path) -> None:
    """Write the folder, which is made."""
    if shipment.format == "docker":
        write_image(shipment.endpoint, folder, shipment.base, shipment.keys)
        return
    folder.mkdir()
    files = manifest_files(shipment)
    for name, objects in files.items():
        (folder / name).write_text(yaml_text(objects), encoding="utf-8")
    write_image(shipment.endpoint, folder / IMAGE, shipment.base, shipment.keys)
    (folder / "README.md").write_text(_readme(shipment, list(files)), encoding="utf-8")


def yaml_text(objects: list[Object]) -> str:
    """Objects as YAML documents, their fields in our order."""
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Dumper(yaml.SafeDumper):
    """Writes everything in full: no ``*id001`` for what stands twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _readme(shipment: Shipment, files: list[str]) -> str:
    image = shipment.options["image"]
    applied = ["-k ."] if "kustomization.yaml" in files else [f"-f {name}" for name in files]
    apply = "\n".join(f"    kubectl apply {what}" for what in applied)
    host = f"http://{shipment.name}.{shipment.options['namespace'] or 'NAMESPACE'}.svc"
    asked = f"\n    curl -s {rows_url(host, shipment.endpoint.name)} -d …" if shipment.format == "kubernetes" else ""
    notes = "".join(f"{note}.\n" for note in shipment.notes)
    return f"""# {shipment.endpoint.name} on {"KServe" if shipment.format == "kserve" else "Kubernetes"}

    docker build -t {image} {IMAGE} && docker push {image}
{apply}{asked}

{IMAGE}/README.md has a whole request.
{notes}"""
