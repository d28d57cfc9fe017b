"""Rate limits on logins: token buckets that refill with time.

    address  10 tries, then one more every 30 s      whoever guesses from one place
    name     20 tries, then one more every 10 s      whoever guesses from many places

A name's bucket fills faster than an address's, so that it takes more than one place to keep it
empty. An attacker could still lock the owner out for ever by guessing all the time from three.
So a browser from which the owner has logged in before has a cookie (`device_key`) and draws from
a third bucket, which nobody else can empty. A one-time link needs no try.
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
"""The most buckets that are kept; the least recently used is dropped first."""


@dataclass(frozen=True)
class Bucket:
    """Whose tries are counted, with the limits of its kind."""

    kind: str
    whose: str

    @property
    def burst(self) -> int:
        """The number of tries in a full bucket."""
        return 20 if self.kind == "name" else 10

    @property
    def seconds(self) -> float:
        """Seconds until one more try."""
        return 10.0 if self.kind == "name" else 30.0


class Attempts:
    """The buckets of one server; used only by the event loop's thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # When each bucket will be full again (generic cell rate algorithm); a bucket that is
        # missing is full.
        self._full: OrderedDict[Bucket, float] = OrderedDict()

    def take(self, buckets: Sequence[Bucket]) -> float:
        """Take a try from every bucket or from none; return the seconds to wait for one.

        Tries are taken before the password is checked, and given back if it was right: otherwise
        a hundred guesses sent at once would all find the bucket full.
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
    """Return the buckets from which a login takes a try."""
    if device:
        return (Bucket("device", name),)
    return (Bucket("address", _place(address)), Bucket("name", name))


def _place(address: str) -> str:
    """Return the network that one client controls: an IPv4 address, or a /64 of IPv6."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def device_key(account: Account) -> str:
    """Return the cookie for a browser from which an account's owner has logged in.

    It is derived from the secret stored hash of the password, so it needs no storage and
    is valid until the password changes. It does not grant access.
    """
    message = f"device of {account.name}".encode()
    return hmac.new((account.password or "").encode(), message, hashlib.sha256).hexdigest()
