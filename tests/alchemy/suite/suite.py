"""Every test of the suite."""

from sqlalchemy.testing.suite import *
