"""Importing this module puts the process's memory into huge pages, where Linux can.

The last module that the tests' fork server imports. A fork copies one entry of the page table for
each page: with torch loaded 100,000 of 4 KiB, in 30 ms for every program, or some hundreds if most
pages have 2 MiB. A page that a fork writes is still copied by 4 KiB.
"""

import ctypes
from pathlib import Path

SIZE = 2 << 20
COLLAPSE = 25
"""MADV_COLLAPSE, since Linux 6.1. Older kernels refuse it, which only costs time."""


def collapse() -> None:
    """Put anonymous private memory into huge pages."""
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, permissions, _offset, _device, inode, *_ = line.split()
        if permissions == "rw-p" and inode == "0":
            start, end = (int(address, 16) for address in addresses.split("-"))
            for page in range(-(-start // SIZE) * SIZE, end - SIZE + 1, SIZE):
                madvise(page, SIZE, COLLAPSE)  # some are refused, such as those never written


collapse()
