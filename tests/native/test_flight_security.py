"""Who may read over Flight: TLS in both directions, the session's token, and what is refused beyond loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.flight as arrow_flight
import pytest

from sabot_native import InvalidTicket, NativeError, Output, Scheme, SegmentLost, ShuffleManager
from sabot_native.flight import FlightPeer, FlightServer
from tests.support.certificates import Authority

KEY = b"k" * 32
TOKEN = "t0ken-of-this-session"
TABLE = pa.table({"i": range(1000)})


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def identity(authority: Authority) -> tuple[bytes, bytes]:
    return authority.issue("server")


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ShuffleManager]:
    with ShuffleManager("writer", budget_bytes=1 << 20, spill_directory=tmp_path / "spill") as manager:
        manager.register_shuffle("q")
        yield manager


@pytest.fixture
def ticket(manager: ShuffleManager) -> bytes:
    manifests = manager.write_partition(TABLE, [Output("q", "e", 0, 0, Scheme.single())])
    return manager.ticket(manifests, 0, 1, KEY)


def fetch(peer: FlightPeer, ticket: bytes) -> pa.Table:
    return pa.table(peer.read(ticket, deadline_ms=20_000))


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_rows_cross_tls(
    manager: ShuffleManager, ticket: bytes, authority: Authority, identity: tuple[bytes, bytes], host: str
) -> None:
    certificate, key = identity
    with FlightServer(manager, KEY, host=host, token=TOKEN, tls_certificate=certificate, tls_key=key) as server:
        for name in ("127.0.0.1", "localhost"):
            peer = FlightPeer(name, server.port, token=TOKEN, tls_root_certificate=authority.root)
            assert fetch(peer, ticket).equals(TABLE)
        assert server.metrics()["refused"] == 0


def test_a_server_of_another_authority_is_refused(
    manager: ShuffleManager, ticket: bytes, tmp_path: Path, identity: tuple[bytes, bytes]
) -> None:
    certificate, key = identity
    other = Authority.make(tmp_path / "other")
    with FlightServer(manager, KEY, token=TOKEN, tls_certificate=certificate, tls_key=key) as server:
        peer = FlightPeer("127.0.0.1", server.port, token=TOKEN, tls_root_certificate=other.root)
        with pytest.raises(SegmentLost):
            fetch(peer, ticket)
        assert server.metrics()["streams"] == 0


def test_a_certificate_of_another_host_is_refused(manager: ShuffleManager, ticket: bytes, authority: Authority) -> None:
    certificate, key = authority.issue("elsewhere", "IP:192.0.2.1,DNS:elsewhere.test")
    with FlightServer(manager, KEY, token=TOKEN, tls_certificate=certificate, tls_key=key) as server:
        peer = FlightPeer("127.0.0.1", server.port, token=TOKEN, tls_root_certificate=authority.root)
        with pytest.raises(SegmentLost):
            fetch(peer, ticket)


def test_a_client_without_tls_is_refused(manager: ShuffleManager, ticket: bytes, identity: tuple[bytes, bytes]) -> None:
    certificate, key = identity
    with FlightServer(manager, KEY, token=TOKEN, tls_certificate=certificate, tls_key=key) as server:
        with pytest.raises(SegmentLost):
            fetch(FlightPeer("127.0.0.1", server.port, token=TOKEN), ticket)
        assert server.metrics()["streams"] == 0


def test_a_server_without_tls_gets_no_token(manager: ShuffleManager, ticket: bytes, authority: Authority) -> None:
    with FlightServer(manager, KEY, token=TOKEN) as server:
        peer = FlightPeer("127.0.0.1", server.port, token=TOKEN, tls_root_certificate=authority.root)
        with pytest.raises(SegmentLost):
            fetch(peer, ticket)


def test_a_client_without_a_certificate_is_refused_where_one_is_asked_for(
    manager: ShuffleManager, ticket: bytes, authority: Authority, identity: tuple[bytes, bytes], tmp_path: Path
) -> None:
    certificate, key = identity
    stranger = Authority.make(tmp_path / "strangers").issue("stranger")
    with FlightServer(
        manager, KEY, token=TOKEN, tls_certificate=certificate, tls_key=key, tls_client_root=authority.root
    ) as server:

        def peer(shown: tuple[bytes, bytes]) -> FlightPeer:
            return FlightPeer(
                "127.0.0.1",
                server.port,
                token=TOKEN,
                tls_root_certificate=authority.root,
                tls_certificate=shown[0],
                tls_key=shown[1],
            )

        for refused in ((b"", b""), stranger):
            with pytest.raises(SegmentLost):
                fetch(peer(refused), ticket)
        assert fetch(peer(authority.issue("client")), ticket).equals(TABLE)


@pytest.mark.parametrize("token", ["", "another", TOKEN[:-1], TOKEN + "x", TOKEN.upper()])
def test_a_call_without_the_token_is_refused(manager: ShuffleManager, ticket: bytes, token: str) -> None:
    with FlightServer(manager, KEY, token=TOKEN) as server:
        with pytest.raises(InvalidTicket, match="no token of this session"):
            fetch(FlightPeer("127.0.0.1", server.port, token=token), ticket)
        assert server.metrics() == {**dict.fromkeys(server.metrics(), 0), "refused": 1}
        assert fetch(FlightPeer("127.0.0.1", server.port, token=TOKEN), ticket).equals(TABLE)


def test_no_verb_answers_without_the_token(manager: ShuffleManager) -> None:
    descriptor = arrow_flight.FlightDescriptor.for_path("x")
    with (
        FlightServer(manager, KEY, token=TOKEN) as server,
        arrow_flight.connect(f"grpc://127.0.0.1:{server.port}") as client,
    ):
        verbs = (
            lambda: list(client.list_flights()),
            lambda: client.list_actions(),
            lambda: list(client.do_action("anything")),
            lambda: client.get_flight_info(descriptor),
            lambda: client.get_schema(descriptor),
            lambda: client.do_get(arrow_flight.Ticket(b"x")).read_all(),
            lambda: client.do_put(descriptor, TABLE.schema)[0].close(),
            lambda: client.do_exchange(descriptor)[1].read_all(),
        )
        for verb in verbs:
            with pytest.raises((arrow_flight.FlightUnauthenticatedError, OSError), match="no token of this session"):
                verb()
        assert server.metrics()["refused"] == len(verbs)


def test_two_tokens_are_none(manager: ShuffleManager) -> None:
    twice = arrow_flight.FlightCallOptions(
        headers=[(b"authorization", f"Bearer {TOKEN}".encode()), (b"authorization", b"Bearer another")]
    )
    with (
        FlightServer(manager, KEY, token=TOKEN) as server,
        arrow_flight.connect(f"grpc://127.0.0.1:{server.port}") as client,
        pytest.raises(arrow_flight.FlightUnauthenticatedError),
    ):
        list(client.list_flights(options=twice))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.test"])
def test_beyond_loopback_there_is_no_serving_without_tls_and_token(
    manager: ShuffleManager, identity: tuple[bytes, bytes], host: str
) -> None:
    certificate, key = identity
    incomplete: tuple[dict[str, bytes], ...] = (
        {},
        {"tls_certificate": certificate},
        {"tls_certificate": certificate, "tls_key": key},
    )
    for given in incomplete:
        with pytest.raises(NativeError, match="without TLS and a token: give tls_certificate, tls_key and token"):
            FlightServer(manager, KEY, host=host, **given)  # type: ignore[arg-type]
    with pytest.raises(NativeError, match="without TLS and a token"):
        FlightServer(manager, KEY, host=host, token=TOKEN)


def test_beyond_loopback_there_is_no_reading_without_tls() -> None:
    with pytest.raises(NativeError, match="without TLS: give tls_root_certificate"):
        FlightPeer("192.0.2.1", 1, token=TOKEN)


def test_certificates_that_are_none_are_an_error(manager: ShuffleManager) -> None:
    with pytest.raises(NativeError, match="cannot serve"):
        FlightServer(manager, KEY, token=TOKEN, tls_certificate=b"no PEM", tls_key=b"none either")


def test_a_port_that_is_taken_is_an_error(manager: ShuffleManager) -> None:
    with FlightServer(manager, KEY) as server, pytest.raises(NativeError, match="cannot serve"):
        FlightServer(manager, KEY, port=server.port)


# ------------------------------------------------------------------------------- checks of the native parts themselves

NO_IDS = ["", ".", "../q", "/etc", "a/b", "q\0", "q q", "q%2e", "ü", "\x1b[2J", "q\n", "x" * 65, "x" * 10_240]


@pytest.mark.parametrize("name", NO_IDS, ids=lambda name: repr(name)[:20])
def test_the_manager_itself_refuses_what_is_no_id(manager: ShuffleManager, tmp_path: Path, name: str) -> None:
    with pytest.raises(NativeError, match="letters, digits"):
        manager.register_shuffle(name)
    for query_id, edge_id in ((name, "e"), ("q", name)):
        with pytest.raises(NativeError, match="letters, digits"):
            manager.write_partition(TABLE, [Output(query_id, edge_id, 0, 0, Scheme.single())])
    with pytest.raises(NativeError, match="letters, digits"):
        manager.attach_peer(name, manager.arena_fd(), str(tmp_path))
    with pytest.raises(NativeError, match="letters, digits"):
        ShuffleManager(name, budget_bytes=1 << 20, spill_directory=tmp_path / "other")


def test_an_id_of_64_characters_is_one(manager: ShuffleManager) -> None:
    manager.register_shuffle("Az09_-" + "x" * 58)


@pytest.mark.parametrize("key", [b"", b"k", b"k" * 31])
def test_a_short_ticket_key_is_refused_everywhere(manager: ShuffleManager, ticket: bytes, key: bytes) -> None:
    manifests = manager.write_partition(TABLE, [Output("q", "other", 0, 0, Scheme.single())])
    with pytest.raises(NativeError, match="at least 32 bytes"):
        manager.ticket(manifests, 0, 1, key)
    with pytest.raises(NativeError, match="at least 32 bytes"):
        manager.live_ticket("q", "other", [(0, 0)], 0, 1, key)
    with pytest.raises(NativeError, match="at least 32 bytes"):
        manager.read_ticket(ticket, key)
    with pytest.raises(NativeError, match="at least 32 bytes"):
        FlightServer(manager, key)


@pytest.mark.parametrize("host", ["::1", "[::1]", "localhost", "127.0.0.1", "127.1.2.3"])
def test_loopback_in_every_spelling(manager: ShuffleManager, ticket: bytes, host: str) -> None:
    with FlightServer(manager, KEY, host=host) as server:
        assert fetch(FlightPeer(host, server.port), ticket).equals(TABLE)


OUTSIDE = [
    "0.0.0.0",
    "::",
    "[::]",
    "10.0.0.1",
    "[::2]",
    "::ffff:8.8.8.8",
    "localhost.example",
    "",
    "[]",
    "127.0.0.1.example",
]


@pytest.mark.parametrize("host", OUTSIDE)
def test_the_native_server_and_client_refuse_other_hosts_without_tls(host: str) -> None:
    from sabot_native import _flight

    certificates = {"tls_certificate": b"", "tls_key": b""}
    with pytest.raises(NativeError, match="without TLS"):
        _flight.Server(
            host=host,
            port=0,
            token=TOKEN,
            tls_client_root=b"",
            compression="none",
            wire_bytes_per_second=1,
            **certificates,
        )
    with pytest.raises(NativeError, match="without TLS"):
        _flight.ClientPool(
            host=host,
            port=1,
            token=TOKEN,
            tls=False,
            tls_root_certificate=b"",
            connections=1,
            credit_bytes=1,
            **certificates,
        )
