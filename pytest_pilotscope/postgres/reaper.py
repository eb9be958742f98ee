"""
The process that removes a container when the process that started it is killed.

Run as a script with `python -I reaper.py CONTAINER`. Its standard input is a pipe from the process that started it. A byte on the pipe
dismisses the reaper. The end of the pipe, or the death of the starting process (Linux, also while a forked child still holds the pipe),
makes it remove the container with its volume. It sleeps in select() and imports Docker's client only for the removal.
"""

from __future__ import annotations

import os
import select
import sys


def main(container: str) -> None:
    """Wait to be dismissed, or remove the container."""
    if sys.platform == "linux" and hasattr(os, "pidfd_open"):
        watched = [0, os.pidfd_open(os.getppid())]
    else:
        watched = [0]
    if 0 in select.select(watched, [], [])[0] and os.read(0, 1):
        return
    from docker.client import DockerClient
    from docker.errors import NotFound

    client = DockerClient.from_env()
    try:
        client.containers.get(container).remove(force=True, v=True)
    except NotFound:
        return
    finally:
        client.close()


if __name__ == "__main__":
    main(sys.argv[1])
