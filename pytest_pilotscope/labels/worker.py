"""
A process that counts: `python -m pytest_pilotscope.labels.worker`, started by `workers`.

It reads and writes JSON lines. The first line names the folder of columns, the settings under which they were read, the key columns and
the memory that it may take. Every further line is a query with sets of its relations; the process answers with a line of counts. It ends
with its input, so it does not outlive the process that started it.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import TextIO

from pytest_pilotscope.labels.columnstore import Column
from pytest_pilotscope.labels.memory import Memory
from pytest_pilotscope.labels.query_json import from_message
from pytest_pilotscope.labels.task import Counter
from pytest_pilotscope.queries.joins import KeyType


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer tasks until the input ends."""
    opening = json.loads(requests.readline())
    classes = [[Column(table, column, KeyType(*key)) for table, column, key in members] for members in opening["classes"]]
    with closing(Counter(Path(opening["folder"]), opening["context"], classes, Memory(opening["memory_bytes"]))) as counter:
        for line in requests:
            request = json.loads(line)
            counted = counter.count(from_message(request["query"]), request["masks"], request["empty"])
            answers.write(json.dumps(counted) + "\n")
            answers.flush()


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)
