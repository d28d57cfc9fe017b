"""Ends a process as the interpreter would, but without tearing down its modules."""

import atexit
import os
import sys
import threading
import weakref
from typing import NoReturn

UNFLUSHED = 120
"""Python's exit status if output could not be written at the end."""


def leave(code: int) -> NoReturn:
    """End this process: wait for its threads, run what is registered for the end, flush.

    Python would then free the objects of thousands of modules one by one: 0.1 to 0.3 s for a
    command, and half a second for a fork that has torch, whose pages it would copy.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # joins threads, as at any exit
    _keep_torch_registered()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()
        except OSError:
            code = UNFLUSHED
    os._exit(code & 0xFF)  # as the system would: a larger number is refused here


def _keep_torch_registered() -> None:
    """Do not remove torch's 149 operator libraries one by one: the memory goes with the process.

    It would take 25 ms, most of which a fork spends on copies of their pages.
    """
    registry = weakref.finalize._registry  # type: ignore[attr-defined]
    for finalizer, registered in list(registry.items()):
        if getattr(registered.func, "__module__", None) == "torch.library":
            finalizer.atexit = False
