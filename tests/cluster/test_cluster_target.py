"""How a cluster is named, and what is said where it is named wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest

from sabot_sql.cluster_target import ClusterTarget, is_cluster, parse_address, parse_cluster
from sabot_sql.config import Isolation, parse_config
from sabot_sql.errors import ConfigError
from sabot_sql.transport.credentials import read_credentials

pytestmark = pytest.mark.fast


def test_what_names_a_cluster_and_what_a_database() -> None:
    for name in ("grpc://h", "grpc+tls://h:1,g:2", "local://", "cluster.toml", Path("a/cluster.toml")):
        assert is_cluster(name), name
    for name in (":memory:", "my.db", "local", "grpc", "s3://bucket/x.db", "", Path("my.db"), 7, b"grpc://h", None):
        assert not is_cluster(name), name


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("h", ("h", 8815)),
        ("h:1", ("h", 1)),
        ("[::1]:9", ("::1", 9)),
        ("[::1]", ("::1", 8815)),
        (" 10.0.0.1:65535 ", ("10.0.0.1", 65535)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", ":1", "h:", "h:x", "h:65536", "h/x", "h h", "h:1:2", "[::1", "\x1b[2Jh"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match="is no address"):
        parse_address(text)


def test_addresses_are_taken_once_and_in_their_order() -> None:
    assert parse_cluster("grpc://b:2,a,b:2/").addresses == (("b", 2), ("a", 8815))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("grpc+tls://h", {}, "needs tls_ca"),
        ("grpc://h", {"tls_ca": "ca.pem"}, "is for grpc"),
        ("grpc://h", {"lease_seconds": 0.5}, "lease_seconds=0.5"),
        ("grpc://h", {"lease_seconds": True}, "lease_seconds=True"),
        ("grpc://h", {"token_file": 7}, "token_file=7"),
        ("http://h", {}, "names no cluster"),
    ],
)
def test_what_does_not_fit_together(name: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_cluster(name, **options)


def test_a_cluster_file_names_files_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text('addresses = ["h1", "h2:1"]\ntoken_file = "token"\ntls_ca = "/etc/ca.pem"\nagents = 1\n')
    assert parse_cluster(file, lease_seconds=3) == ClusterTarget(
        "grpc+tls",
        (("h1", 8815), ("h2", 1)),
        str(tmp_path / "token"),
        "/etc/ca.pem",
        lease_seconds=3.0,
    )
    config = parse_config(file)
    assert (config.agents, config.isolation, config.database) == (1, Isolation.REMOTE, ":memory:")
    assert parse_config(file, agents=2).agents == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("addresses = []", "list of 'host:port'"),
        ('addresses = "h"', "list of 'host:port'"),
        ('addresses = ["h"]\nsecret = 1', "unknown keys: secret"),
        ("addresses = [", "is no TOML"),
    ],
)
def test_a_cluster_file_that_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        parse_cluster(file)


def test_options_of_a_cluster_need_one() -> None:
    with pytest.raises(ConfigError, match="token_file: only for agents of a cluster"):
        parse_config("my.db", token_file="token")
    with pytest.raises(ConfigError, match="named twice"):
        parse_config("grpc://h", cluster="grpc://g")
    assert parse_config("my.db", cluster="grpc://h,g").agents == 2


def test_a_token_is_long_and_its_owner_s_alone(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("x" * 32 + "\n")
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="other users may read"):
        read_credentials(str(file), None, None, None)
    file.chmod(0o600)
    credentials = read_credentials(str(file), None, None, None)
    assert credentials.token == "x" * 32
    assert "xxx" not in repr(credentials)
    for short in ("", "short", "x" * 20 + "\x00", "ü" * 20):
        file.write_text(short)
        with pytest.raises(ConfigError, match="is no token"):
            read_credentials(str(file), None, None, None)
    with pytest.raises(ConfigError, match="No such file"):
        read_credentials(str(tmp_path / "none"), None, None, None)
    with pytest.raises(ConfigError, match="go together"):
        read_credentials(None, None, str(file), None)
