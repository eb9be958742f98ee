"""
True cardinalities: the exact number of rows of every subplan of a query.

`cardinalities` is the door. The planner says what each subplan means. Joins by equality are counted in memory without joining
(`counting`), the rest by PostgreSQL; labels and the columns they are made of are kept on disk.
"""

from pytest_pilotscope.labels.book import Progress
from pytest_pilotscope.labels.cache import Label
from pytest_pilotscope.labels.collect import Labels, cardinalities
from pytest_pilotscope.labels.source import RowSource, SessionSource
from pytest_pilotscope.postgres.catalog import read_schema

__all__ = ["Label", "Labels", "Progress", "RowSource", "SessionSource", "cardinalities", "read_schema"]
