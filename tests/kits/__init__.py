"""Contract kits: one function for each seam, that checks an implementation by being given it.

Outside packages can use them: ``check_algorithm(MyAlgorithm(), tmp_path)``.
"""

from tests.kits.algorithms import check_algorithm, example_data
from tests.kits.engines import check_engine
from tests.kits.runners import check_runner
from tests.kits.targets import check_installer, check_target

__all__ = ["check_algorithm", "check_engine", "check_installer", "check_runner", "check_target", "example_data"]
