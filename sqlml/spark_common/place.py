"""A place for files that both this process and a cluster reach: a folder of this machine, or one behind a URL (``s3://…``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlml.errors import OperationalError


class Place:
    """A folder or a file by its path or URL.  ``OperationalError`` where no file system is known for a URL."""

    def __init__(self, where: str | Path) -> None:
        import pyarrow
        from pyarrow.fs import FileSystem

        text = str(where)
        try:
            found = FileSystem.from_uri(text if "://" in text else str(Path(text).absolute()))
        except (pyarrow.ArrowException, OSError) as error:
            raise OperationalError(
                f"staging '{text}' cannot be used: {error}",
                hint="give a folder that all machines share, or a URL: s3://, gs://, hdfs://",
            ) from error
        self.system: Any = found[0]
        self.path = str(found[1])
        self.url = text.rstrip("/") if "://" in text else f"file://{self.path}"
        """As Spark reads it: a path alone would be one of the cluster's own file system."""

    def below(self, name: str) -> Place:
        """A file or folder in this folder."""
        return Place(f"{self.url}/{name}")

    def create(self) -> None:
        """Make the folder, and those above it."""
        self.system.create_dir(self.path, recursive=True)

    def write(self) -> Any:
        """The file as a stream to write to."""
        return self.system.open_output_stream(self.path)

    def fetch(self, folder: Path) -> None:
        """Copy the files of this folder into one of this machine."""
        from pyarrow.fs import FileSelector, LocalFileSystem, copy_files

        folder.mkdir(parents=True, exist_ok=True)
        for info in self.system.get_file_info(FileSelector(self.path, allow_not_found=True)):
            if info.is_file:
                copy_files(info.path, str(folder / info.base_name), self.system, LocalFileSystem())

    def remove(self) -> None:
        """Remove it, a folder with all that is in it; nothing where it is not there."""
        info = self.system.get_file_info(self.path)
        if info.is_file:
            self.system.delete_file(self.path)
        elif info.type.name == "Directory":
            self.system.delete_dir(self.path)


def read_parquet(session: Any, place: Place) -> Any:
    """The rows of a Parquet file, or of all in a folder, that we wrote ourselves.

    Without Spark's mark in the file, Spark takes days before 1582 for those of another calendar, and refuses.
    """
    return session.read.option("datetimeRebaseMode", "CORRECTED").parquet(place.url)
