"""Guesses are rate-limited, and no user is locked out by another's guesses."""

from dataclasses import dataclass

from tuner.dashboard import attempts
from tuner.dashboard.attempts import Attempts, buckets_of


@dataclass
class Clock:
    """A clock that tests advance."""

    now: float = 1000.0

    def __call__(self) -> float:
        """Return its time."""
        return self.now


def tries(limits: Attempts, count: int, name: str, address: str, *, device: bool = False) -> int:
    """Try this many times at once; return how many tries were allowed."""
    return sum(not limits.take(buckets_of(name, address, device=device)) for _ in range(count))


def test_one_address_has_ten_tries_and_then_two_a_minute() -> None:
    """An address has ten tries and then two a minute, whichever names it tries."""
    clock = Clock()
    limits = Attempts(clock)
    assert sum(tries(limits, 1, f"user{n}", "192.0.2.1") for n in range(50)) == 10
    wait = limits.take(buckets_of("maria", "192.0.2.1", device=False))
    assert wait == 30.0
    clock.now += wait
    assert tries(limits, 5, "maria", "192.0.2.1") == 1
    assert tries(limits, 5, "maria", "192.0.2.2") == 5


def test_a_name_has_twenty_tries_from_everywhere() -> None:
    """A name has twenty tries from all addresses; a refusal by name costs the address no try."""
    limits = Attempts(Clock())
    assert sum(tries(limits, 1, "maria", f"192.0.2.{n}") for n in range(200)) == 20
    assert tries(limits, 20, "paul", "192.0.2.150") == 10


def test_one_address_does_not_lock_a_name_out() -> None:
    """Guessing from one address leaves tries for others."""
    clock = Clock()
    limits = Attempts(clock)
    for _ in range(1000):
        tries(limits, 1, "maria", "192.0.2.1")
        clock.now += 1.0
    assert tries(limits, 1, "maria", "192.0.2.2") == 1


def test_the_owners_browser_is_not_locked_out() -> None:
    """A browser with the device cookie uses a bucket that others cannot empty."""
    limits = Attempts(Clock())
    for n in range(200):
        tries(limits, 20, "maria", f"192.0.2.{n}")
    assert tries(limits, 1, "maria", "192.0.2.1") == 0
    assert tries(limits, 50, "maria", "192.0.2.1", device=True) == 10


def test_neighbours_of_ipv6_are_one() -> None:
    """A /64 of IPv6 counts as one address, and both spellings of an IPv4 address as one."""
    limits = Attempts(Clock())
    assert sum(tries(limits, 1, f"u{n}", f"2001:db8::{n:x}") for n in range(50)) == 10
    assert tries(limits, 20, "a", "2001:db8:0:1::1") == 10
    assert tries(limits, 20, "b", "::ffff:192.0.2.9") == 10
    assert tries(limits, 20, "c", "192.0.2.9") == 0


def test_a_try_that_was_right_is_given_back() -> None:
    """Someone with the right password may log in without limit."""
    limits = Attempts(Clock())
    buckets = buckets_of("maria", "192.0.2.1", device=False)
    for _ in range(100):
        assert limits.take(buckets) == 0.0
        limits.give_back(buckets)


def test_memory_is_bounded() -> None:
    """Any number of names and addresses uses bounded memory."""
    limits = Attempts(Clock())
    for n in range(attempts.MOST):
        limits.take(buckets_of(f"user{n}", f"2001:db8:{n:x}::1", device=False))
    assert len(limits._full) == attempts.MOST
