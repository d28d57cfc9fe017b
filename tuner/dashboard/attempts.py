"""How often somebody may try to log in: buckets of tries that fill up again with time.

    address  10 tries, then one more every 30 s      whoever guesses from one place
    name     20 tries, then one more every 10 s      whoever guesses from many places

A name's bucket fills faster than an address's, so that it takes more than one place to keep it
empty. Still an attacker could lock its owner out for ever, by guessing all the time from three.
So a browser from which the owner has logged in before shows a cookie (`device_key`) and draws from
a third bucket, which nobody else can empty. A one-time link needs no try at all.
"""

import hashlib
import hmac
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tuner.store.accounts import Account

MOST = 20_000
"""Buckets that are kept; the one used longest ago goes first."""


@dataclass(frozen=True)
class Bucket:
    """Whose tries are counted, and how many there are."""

    kind: str
    whose: str

    @property
    def burst(self) -> int:
        """How many tries it holds."""
        return 20 if self.kind == "name" else 10

    @property
    def seconds(self) -> float:
        """After how long there is one more."""
        return 10.0 if self.kind == "name" else 30.0


class Attempts:
    """The buckets of one server. For one thread: that of the event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # When each bucket will be full again (the generic cell rate algorithm); a bucket that is
        # not here is full.
        self._full: OrderedDict[Bucket, float] = OrderedDict()

    def take(self, buckets: Sequence[Bucket]) -> float:
        """Take a try from each bucket, or from none; return the seconds to wait for one.

        Taken before the password is looked at, and given back if it was right: else a hundred
        guesses sent at once would all find the bucket full.
        """
        now = self._clock()
        waits = [self._wait(bucket, now) for bucket in buckets]
        if max(waits) > 0.0:
            return max(waits)
        for bucket in buckets:
            self._full[bucket] = max(self._full.get(bucket, now), now) + bucket.seconds
            self._full.move_to_end(bucket)
        while len(self._full) > MOST:
            self._full.popitem(last=False)
        return 0.0

    def give_back(self, buckets: Sequence[Bucket]) -> None:
        """Put a try back into each bucket."""
        for bucket in buckets:
            if bucket in self._full:
                self._full[bucket] -= bucket.seconds

    def _wait(self, bucket: Bucket, now: float) -> float:
        missing = max(self._full.get(bucket, now) - now, 0.0)
        return max(missing - (bucket.burst - 1) * bucket.seconds, 0.0)


def buckets_of(name: str, address: str, *, device: bool) -> tuple[Bucket, ...]:
    """Return the buckets that a try is taken from."""
    if device:
        return (Bucket("device", name),)
    return (Bucket("address", _place(address)), Bucket("name", name))


def _place(address: str) -> str:
    """Return what one attacker has of the network: one address of IPv4, 2^64 of IPv6."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def device_key(account: Account) -> str:
    """Return what a browser is given from which an account's owner has logged in.

    It follows from the stored hash of the password, which nobody knows, so it needs no storage and
    is good until the password is changed. It lets nobody in.
    """
    message = f"device of {account.name}".encode()
    return hmac.new((account.password or "").encode(), message, hashlib.sha256).hexdigest()
