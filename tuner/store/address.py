"""The address of a PostgreSQL server, as keyword arguments for libpq.

A connection is made from keywords, never from a URL, so that no character of a
password needs quoting. URLs are only read here, and written for people.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from tuner.errors import UserError
from tuner.settings import Settings

SCHEMES = ("postgresql+psycopg2", "postgresql", "postgres")
SECRET_OPTIONS = frozenset(
    ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")
)
LIBPQ_OPTIONS = SECRET_OPTIONS | frozenset(
    re.findall(
        r"\w+",
        """application_name channel_binding client_encoding connect_timeout dbname
        fallback_application_name gssdelegation gssencmode gsslib host hostaddr keepalives
        keepalives_count keepalives_idle keepalives_interval krbsrvname load_balance_hosts
        max_protocol_version min_protocol_version oauth_client_id oauth_issuer oauth_scope
        options passfile port replication require_auth requirepeer requiressl service
        servicefile sslcert sslcertmode sslcompression sslcrl sslcrldir sslkey sslkeylogfile
        ssl_max_protocol_version ssl_min_protocol_version sslmode sslnegotiation sslrootcert
        sslsni target_session_attrs tcp_user_timeout user""",
    )
)
MASK = "***"

_HOST = re.compile(r"\[[0-9A-Fa-f:.%]+\]|[\w.%~+-]*")
_PLACE = re.compile(r"(?P<hosts>[^/?#@]*)(?:/(?P<dbname>[^/?#@]*))?(?:\?(?P<query>.*))?", re.DOTALL)
_EXPECTED = (
    "expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with all characters except letters "
    "and digits written as %XX (`@` is %40, `/` is %2F)"
)


@dataclass(frozen=True, repr=False)
class Address:
    """A database address as libpq keywords; its repr never shows secrets."""

    parameters: Mapping[str, str]
    """For `psycopg2.connect("", **parameters)`; if empty, libpq's own variables decide."""

    def __repr__(self) -> str:
        return f"Address({self.masked!r})"

    def __hash__(self) -> int:
        return hash(frozenset(self.parameters.items()))

    @property
    def masked(self) -> str:
        """The address as a URL for people, with every secret replaced by ***."""
        return self.url()

    def url(self, show_password: bool = False) -> str:
        """Return the address as a URL that `parse` can read; secrets only on request."""
        shown = {
            key: value if show_password or key not in SECRET_OPTIONS else MASK
            for key, value in self.parameters.items()
        }
        place = _hosts(shown) if _fits_authority(shown) else ""
        written = {"user", "password", "dbname"} if "user" in shown else {"dbname"}
        written |= {"host", "port"} if place else set()
        options = "&".join(f"{k}={_quote(v)}" for k, v in shown.items() if k not in written)
        path = "/" + _quote(shown["dbname"]) if "dbname" in shown else ""
        query = "?" + options if options else ""
        return f"postgresql://{_credentials(shown)}{place}{path}{query}"


def parse(url: str) -> Address:
    """Parse a URL; an invalid one raises a UserError that repeats none of it."""
    scheme, separator, rest = url.strip().partition("://")
    if not separator or scheme not in SCHEMES:
        raise UserError(f"The database address cannot be read: {_EXPECTED}.")
    for user, place in _readings(rest):
        parameters = _place(place)
        if parameters is not None:
            return _checked({**parameters, **_user(user)})
    # The fault is most likely after the last @, but even that text may be part of a
    # password, so none of it is repeated.
    raise UserError(
        f"The database address cannot be read: {_EXPECTED}; after ? only options that libpq "
        "knows (sslmode, connect_timeout, host, …), written as name=value and joined by &."
    )


def of_server(settings: Settings) -> Address:
    """Return the address of the server that the settings name, with its password.

    Everything that connects to a server uses this, including the `tuner db` commands.
    Without a URL the address is empty: libpq's own variables, service file and
    password file decide.
    """
    url, file = settings.database_url, settings.password_file
    address = Address({}) if url is None else parse(url)
    if file is None or "password" in address.parameters:
        return address
    try:
        password = file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UserError(
            f"TUNER_DATABASE_PASSWORD_FILE names {file}, which cannot be read: {reason}."
        ) from None
    return _checked({**address.parameters, "password": password})


def _readings(rest: str) -> Iterator[tuple[str | None, str]]:
    """Yield the ways to split credentials from the host, the standard one first.

    By the standard, credentials end before the first / ? or #. People paste raw
    passwords that contain those; such a text has no standard reading, so the last @
    is taken as the end of the credentials.
    """
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" not in authority:
        yield None, rest
    else:
        cut = authority.rindex("@")
        yield rest[:cut], rest[cut + 1 :]
    if "@" in rest:
        user, _, place = rest.rpartition("@")
        yield user, place


def _place(text: str) -> dict[str, str] | None:
    """Parse `host:port,host:port/dbname?options`; return None if the text is not of that form."""
    match = _PLACE.fullmatch(text)
    hosts = _split_hosts(match["hosts"]) if match else None
    options = _options(match["query"] or "") if match else None
    if match is None or hosts is None or options is None:
        return None
    parameters = {**hosts}
    if match["dbname"]:
        parameters["dbname"] = _unquote(match["dbname"])
    return {**parameters, **options}


def _split_hosts(text: str) -> dict[str, str] | None:
    """Return libpq's parallel lists of hosts and ports."""
    hosts, ports = [], []
    for item in text.split(","):
        host = _HOST.match(item)
        port = item[host.end() :] if host else ""
        if host is None or not re.fullmatch(r"(:\d{0,5})?", port, re.ASCII):
            return None
        hosts.append(_unquote(host[0].strip("[]")))
        ports.append(port[1:])
    parameters = {"host": ",".join(hosts)} if any(hosts) else {}
    return parameters | ({"port": ",".join(ports)} if any(ports) else {})


def _options(query: str) -> dict[str, str] | None:
    """Parse the options after `?`; a repeated host or port becomes a list."""
    options: dict[str, str] = {}
    for item in query.split("&") if query else ():
        key, equals, value = item.partition("=")
        if (
            not equals
            or key not in LIBPQ_OPTIONS
            or (key in options and key not in ("host", "port"))
        ):
            return None
        options[key] = f"{options[key]},{_unquote(value)}" if key in options else _unquote(value)
    return options


def _user(text: str | None) -> dict[str, str]:
    name, _, password = (text or "").partition(":")
    pairs = (("user", _unquote(name)), ("password", _unquote(password)))
    return {key: value for key, value in pairs if value}


def _checked(parameters: dict[str, str]) -> Address:
    if any("\0" in value for value in parameters.values()):
        raise UserError(f"The database address or password contains a NUL character: {_EXPECTED}.")
    return Address(parameters)


def _unquote(text: str) -> str:
    """Decode %XX; any other % is literal."""
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeError:
        raise UserError(
            f"The database address contains %XX pairs that are not UTF-8: {_EXPECTED}."
        ) from None


def _quote(text: str) -> str:
    return MASK if text == MASK else quote(text, safe="")


def _credentials(shown: Mapping[str, str]) -> str:
    if "user" not in shown:
        return ""
    password = ":" + _quote(shown["password"]) if "password" in shown else ""
    return f"{_quote(shown['user'])}{password}@"


def _fits_authority(shown: Mapping[str, str]) -> bool:
    """Whether hosts and ports fit before the path: as many ports as hosts, and no sockets."""
    hosts, ports = shown.get("host", "").split(","), shown.get("port", "").split(",")
    plain = all(re.fullmatch(r"[\w.%~+:-]+", host) for host in hosts)
    numbered = all(re.fullmatch(r"\d{0,5}", port, re.ASCII) for port in ports)
    return plain and numbered and (len(hosts) == len(ports) or "port" not in shown)


def _hosts(shown: Mapping[str, str]) -> str:
    hosts = shown["host"].split(",")
    ports = shown["port"].split(",") if "port" in shown else [""] * len(hosts)
    return ",".join(
        (f"[{host}]" if ":" in host else _quote(host)) + (f":{port}" if port else "")
        for host, port in zip(hosts, ports, strict=True)
    )
