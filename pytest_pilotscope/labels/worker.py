"""
A process that counts: `python -m pytest_pilotscope.labels.worker`, started by `workers`.

It speaks JSON lines. The first line names the folder of columns, the schema, the key columns and the number of processes;
every further line is a task and is answered with a line of counts. It ends with its input, so it does not outlive whoever
started it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TextIO

from pytest_pilotscope.core.joins import parse
from pytest_pilotscope.labels.task import Counter, Task


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer tasks until there are no more."""
    opening = json.loads(requests.readline())
    schema = opening["schema"]
    classes = [[(table, column) for table, column in members] for members in opening["classes"]]
    counter = Counter(Path(opening["folder"]), schema, classes, opening["processes"])
    for line in requests:
        request = json.loads(line)
        task = Task(query=parse(request["sql"], schema), masks=tuple(request["masks"]), empty=tuple(request["empty"]))
        answers.write(json.dumps(counter.count(task)) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)
