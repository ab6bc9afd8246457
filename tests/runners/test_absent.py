"""What a job's process does without: scikit-learn, which nobody else is kept from, and the language."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import importlib, sys, threading
from sqlml_runners.worker import _Absent

first, second = threading.Event(), threading.Event()

def other():
    sys.meta_path.insert(0, _Absent("sklearn", thread=threading.get_ident()))
    try:
        importlib.import_module("sklearn")
    except ModuleNotFoundError:
        print("not there")
    first.set()
    second.wait(60)

thread = threading.Thread(target=other)
thread.start()
first.wait(60)
import sklearn.metrics
print("there")
second.set()
thread.join()
"""


def test_a_library_is_absent_for_one_thread_and_there_for_the_fits_of_transform() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split("\n")[:2] == ["not there", "there"], done.stderr


AHEAD = """
import sys, threading
from sqlml_runners.worker import _import_ahead

_import_ahead("xgboost_classifier")
for thread in threading.enumerate():
    if thread is not threading.main_thread():
        thread.join(60)
without = ("pandas", "sklearn", "scipy.special", "sqlml_dialect.parser", "sqlml_dialect.nodes", "sqlml.session", "duckdb")
print([name for name in without if name in sys.modules])
import xgboost
print(xgboost.train.__name__, hasattr(xgboost, "XGBClassifier"))
"""


def test_a_job_imports_what_a_training_needs_and_no_more() -> None:
    done = subprocess.run([sys.executable, "-c", AHEAD], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines() == ["[]", "train False"], done.stderr
