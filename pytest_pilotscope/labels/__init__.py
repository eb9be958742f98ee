"""
True cardinalities: the exact number of rows of every subplan of a query.

Call `cardinalities`. The planner says which rows each subplan has. This package counts joins by equality in memory without joining
(`counting`), PostgreSQL counts the rest. Labels, and the columns that they are counted from, are kept on disk.
"""

from pytest_pilotscope.labels.collect import Labels, cardinalities
from pytest_pilotscope.labels.labelcache import Label
from pytest_pilotscope.labels.source import RowSource, SessionSource
from pytest_pilotscope.labels.worklist import Progress
from pytest_pilotscope.postgres.catalog import read_schema

__all__ = ["Label", "Labels", "Progress", "RowSource", "SessionSource", "cardinalities", "read_schema"]
