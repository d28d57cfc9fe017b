"""Database addresses: every accepted form, and secrets that stay secret."""

import pickle
from pathlib import Path
from urllib.parse import quote

import psycopg2.extensions
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tuner.errors import UserError
from tuner.settings import Settings
from tuner.store.address import LIBPQ_OPTIONS, Address, of_server, parse

# Every character but NUL (libpq's strings end there) and lone surrogates (no UTF-8).
characters = st.characters(codec="utf-8", exclude_characters="\0")
passwords = st.text(characters, min_size=1)


@given(passwords)
def test_any_password_survives_being_written_and_read(password: str) -> None:
    """A URL written with its password reads back as the same address."""
    address = Address(
        {"host": "db", "port": "5433", "user": "lab", "password": password, "dbname": "t"}
    )
    assert parse(address.url(show_password=True)) == address


@given(st.dictionaries(st.sampled_from(sorted(LIBPQ_OPTIONS - {"host", "port"})), passwords))
def test_any_option_survives_being_written_and_read(parameters: dict[str, str]) -> None:
    """Every libpq option reads back as it was written, whatever its value."""
    assert parse(Address(parameters).url(show_password=True)) == Address(parameters)


@given(st.text(characters, min_size=4))
def test_shown_forms_never_hold_the_password(password: str) -> None:
    """Neither the masked URL nor the repr contains the password, raw or quoted."""
    parameters = {"host": "h1", "user": "u1", "dbname": "d1"}
    template = repr(Address({**parameters, "password": "x"}))
    assume(password not in template)
    address = Address({**parameters, "password": password})
    assert password not in address.masked
    assert password not in repr(address)
    assert address.masked == "postgresql://u1:***@h1/d1"


@given(passwords)
def test_libpq_reads_our_urls_as_we_do(password: str) -> None:
    """The URL printed by `db url --show-password` means the same to libpq."""
    address = Address(
        {"host": "db", "port": "5433", "user": "lab", "password": password, "dbname": "t"}
    )
    assert psycopg2.extensions.parse_dsn(address.url(show_password=True)) == address.parameters


@given(st.text(st.sampled_from("{}%@:/#?&= ü'\"\\$[]"), min_size=1))
def test_raw_odd_passwords_are_understood(odd: str) -> None:
    """A raw password with special characters is read completely: the last @ ends it."""
    password = f"p{odd}w"
    assert parse(f"postgresql://lab:{password}@db/t").parameters["password"] == password


@given(st.text(characters))
def test_a_fault_repeats_nothing_of_the_url(text: str) -> None:
    """Any text is read or refused, and a refusal does not repeat the secret."""
    with pytest.raises(UserError) as caught:
        parse(f"postgresql://lab:s3cr3t{text}@host with space/t")
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_three_schemes_mean_the_same(scheme: str) -> None:
    """The three schemes that other tools print are all accepted."""
    assert parse(f"{scheme}://lab:pw@db:5433/t").parameters == {
        "host": "db",
        "port": "5433",
        "user": "lab",
        "password": "pw",
        "dbname": "t",
    }


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://", {}),
        ("postgresql:///t", {"dbname": "t"}),
        ("postgresql://lab@/t?host=/run/pg", {"user": "lab", "dbname": "t", "host": "/run/pg"}),
        ("postgresql://%2Frun%2Fpg/t", {"host": "/run/pg", "dbname": "t"}),
        ("postgresql://[::1]:5433/t", {"host": "::1", "port": "5433", "dbname": "t"}),
        ("postgresql://a:1,b:2/t", {"host": "a,b", "port": "1,2", "dbname": "t"}),
        ("postgresql://a,b:2/t", {"host": "a,b", "port": ",2", "dbname": "t"}),
        ("postgresql:///t?host=a&host=b", {"host": "a,b", "dbname": "t"}),
        (
            "postgresql://db/t?sslmode=require&connect_timeout=5",
            {"host": "db", "dbname": "t", "sslmode": "require", "connect_timeout": "5"},
        ),
        ("postgresql://db/?application_name=a@b", {"host": "db", "application_name": "a@b"}),
        ("postgresql://lab:12/x@db/", {"host": "db", "user": "lab", "password": "12/x"}),
        ("postgresql://lab:pw@a@db", {"host": "db", "user": "lab", "password": "pw@a"}),
    ],
)  # fmt: skip
def test_forms(url: str, expected: dict[str, str]) -> None:
    """Sockets, several hosts, IPv6, options and a raw / or @ in the password are read."""
    assert parse(url).parameters == expected
    assert parse(Address(expected).url(show_password=True)).parameters == expected


@pytest.mark.parametrize(
    "url",
    [
        "hunter2",
        "mysql://lab:hunter2@db/t",
        "postgresql://lab:hunter2",
        "postgresql://lab:hunter2@db:port/t",
        "postgresql://lab:hunter2@db/t/u",
        "postgresql://lab:hunter2@db/t?sslmod=require",
        "postgresql://lab:hunter2@db/t?sslmode",
        "postgresql://lab:hunter2@db/t?sslmode=a&sslmode=b",
        "postgresql://lab:hunter2%00@db/t",
        "postgresql://lab:hunter2%ff@db/t",
    ],
)
def test_unreadable_addresses_are_refused_without_repeating_them(url: str) -> None:
    """An invalid address is a user's error that gives the expected form, and no secret."""
    with pytest.raises(UserError, match="postgresql://USER:PASSWORD@HOST") as caught:
        parse(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_secrets_among_the_options_are_masked_too() -> None:
    """A password given as an option is masked too."""
    address = parse("postgresql://db/t?password=hunter2&sslpassword=hunter3")
    assert address.parameters["password"] == "hunter2"
    assert "hunter" not in address.masked


def test_no_parameters_leave_everything_to_libpq() -> None:
    """The address from libpq's variables adds nothing to them."""
    address = of_server(Settings(home=Path("home"), libpq=True))
    assert address.parameters == {}
    assert address.masked == "postgresql://"


def test_a_password_file_fills_in_what_the_address_lacks(tmp_path: Path) -> None:
    """It adds its password to a URL without one and to libpq's variables; a URL's own wins."""
    file = tmp_path / "password"
    file.write_text("p@ss wörd\n")

    def password(url: str | None) -> str:
        settings = Settings(home=tmp_path, database_url=url, password_file=file)
        return of_server(settings).parameters["password"]

    assert password("postgresql://lab@db/t") == password(None) == "p@ss wörd"
    assert password("postgresql://lab:own@db/t") == "own"
    file.write_bytes(b"\xff")
    with pytest.raises(UserError, match="not UTF-8"):
        password(None)
    file.unlink()
    with pytest.raises(UserError, match="No such file"):
        password(None)


def test_addresses_can_be_compared_hashed_and_sent() -> None:
    """Addresses are values."""
    address = parse(f"postgresql://lab:{quote('p w')}@db/t")
    assert {address: 1}[pickle.loads(pickle.dumps(address))] == 1
