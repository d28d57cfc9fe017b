"""Special functions by SciPy, which is loaded when one is first called.

Loading `scipy.special` takes as long as all the rest of a command that prints a table.
"""

from collections.abc import Callable
from typing import Any

__all__ = ["betainc", "gammaincinv", "ndtr", "ndtri", "stdtr", "stdtrit"]


def _late(name: str) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        import scipy.special

        return getattr(scipy.special, name)(*arguments)

    call.__name__ = name
    call.__doc__ = f"Return scipy.special's `{name}`."
    return call


betainc = _late("betainc")
gammaincinv = _late("gammaincinv")
ndtr = _late("ndtr")
ndtri = _late("ndtri")
stdtr = _late("stdtr")
stdtrit = _late("stdtrit")
