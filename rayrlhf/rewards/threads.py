"""Members side by side in the threads of one process."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")


class Threads:
    """Calls a function for several indices, `count` of them at the same time; a `count` of 1 starts no thread.

    torch lets go of Python's lock while it computes, and each thread has as many of torch's own threads as the caller.
    """

    def __init__(self, count: int) -> None:
        _wake_vector_math()
        self.count = count
        torch_threads = torch.get_num_threads()
        self._pool = (
            ThreadPoolExecutor(count, "member", initializer=torch.set_num_threads, initargs=(torch_threads,))
            if count > 1
            else None
        )

    def map(self, function: Callable[[int], Result], indices: range) -> list[Result]:
        """`function` of each index, in order. Raises what the first of them raised."""
        if self._pool is None:
            return [function(index) for index in indices]
        return list(self._pool.map(function, indices))


def _wake_vector_math() -> None:
    """Lets MKL find out about the processor while one thread is there.

    It does so when the first `tanh` (or another function of its vector library) is computed, and not atomically: for a
    moment its note of the processor is one that it still has to translate (`mkl_vml_serv_cpu_detect`, MKL 2024.2). A
    second thread that reads the note then computes one `tanh` by another routine, on AVX-512 machines by the one with
    half of the digits, and what is fitted is no longer the same bit for bit.
    """
    torch.tanh(torch.zeros(1))
