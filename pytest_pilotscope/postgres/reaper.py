"""
The process that removes a container when we are killed.

Run as a script with `python -I reaper.py CONTAINER`. Its standard input is a pipe from the process that started it: a byte says goodbye,
and there is nothing left to do; the pipe's end, or the death of the starting process (Linux, also while a forked child still holds the
pipe), means that we were killed, and the container goes, with its volume. It sleeps in select() and imports Docker's client only then.
"""

from __future__ import annotations

import os
import select
import sys


def main(container: str) -> None:
    """Wait for the goodbye, or remove the container."""
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
