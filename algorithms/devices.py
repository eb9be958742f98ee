"""
Device, number of threads and random numbers: the three things that every network here needs.

PyTorch is imported where it computes: that takes seconds, and collecting tests does not need it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import TYPE_CHECKING

from threadpoolctl import ThreadpoolController

from pytest_pilotscope.errors import UsageError

if TYPE_CHECKING:
    import torch


def device(name: str) -> torch.device:
    """Return the device for `auto`, `cpu` or `cuda`; `auto` is CUDA where there is one. UsageError for anything else."""
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"unknown device {name!r}; known: auto, cpu, cuda")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UsageError("--device cuda was asked for, but this installation of PyTorch finds no CUDA device; use --device cpu or auto")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread within the block: the kernels are small, and threads that wait for a busy core cost 25 times more."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_blas_thread() -> AbstractContextManager[None]:
    """Let NumPy multiply on one thread within the block, for the same reason."""
    limited: AbstractContextManager[None] = _blas().limit(limits=1)
    return limited


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw PyTorch's random numbers from a seed within the block, and go on afterwards as if nothing had been drawn."""
    import torch

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
