"""Agent services on this host: welcome, isolation of sessions, drain, loss, and what they refuse."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sabot_sql
from sabot_sql import JobGraph, OperatorType, StreamOperatorNode
from sabot_sql.cli import main
from sabot_sql.errors import AgentError
from tests.support.processes import wait_until
from tests.support.services import Service, token_file

GROUPS = "SELECT i % 101 AS k, count(*), sum(i) FROM range(400000) t(i) GROUP BY k ORDER BY k"
EXPECTED = [(k, len(range(k, 400_000, 101)), sum(range(k, 400_000, 101))) for k in range(101)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for part in range(4):
        rows = range(part * 50_000, (part + 1) * 50_000)
        pq.write_table(pa.table({"i": rows, "k": [i % 17 for i in rows]}), folder / f"part-{part}.parquet")
    return folder


@pytest.fixture
def token(tmp_path: Path) -> Path:
    return token_file(tmp_path)


@pytest.fixture
def services(tmp_path: Path, token: Path, data: Path) -> Iterator[list[Service]]:
    options = ["--token-file", str(token), "--memory", "512MiB", "--threads", "1", "--sessions", "2"]
    options += ["--data", str(data)]
    made = [Service(tmp_path / f"agent-{number}", options=options) for number in range(2)]
    for service in made:
        service.wait_ready()
    yield made
    for service in made:
        service.stop()


def url(services: list[Service]) -> str:
    return "grpc://" + ",".join(f"127.0.0.1:{service.port}" for service in services)


def test_a_query_runs_on_services(services: list[Service], token: Path, data: Path) -> None:
    with sabot_sql.connect(url(services), token_file=token, agents=2) as session:
        assert session.query(GROUPS).fetchall() == EXPECTED
        sql = f"SELECT k, count(*), max(i) FROM '{data}/*.parquet' GROUP BY k ORDER BY k"
        result = session.query(sql)
        assert result.stats["mode"] == "distributed"
        assert result.fetchall() == sabot_sql.query(sql).fetchall()
    for service in services:
        health = service.health("--token-file", str(token))
        assert health["state"] == "serving"
    wait_until(lambda: all(not service.left_behind() for service in services))


def test_top_shows_the_services_that_it_is_told_of(
    services: list[Service],
    token: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    with sabot_sql.connect(url(services), token_file=token, agents=2) as session:
        assert session.query(GROUPS).fetchall() == EXPECTED
        services[1].stop()
        wait_until(lambda: "agent-1:" in _top(capsys, "--connect", url(services), "--token-file", str(token)))
        out = _top(capsys, "--connect", url(services), "--token-file", str(token))
        assert f"agent service 127.0.0.1:{services[0].port} · serving · 1 of 2 sessions" in out
        assert f"agent service 127.0.0.1:{services[1].port} · " in out
        assert "1 session · 0 running · 2 agent services" in out
        stranger = tmp_path / "stranger"
        stranger.touch(mode=0o600)
        stranger.write_text("another-token-of-nobody")
        assert "serving" not in _top(capsys, "--connect", url(services), "--token-file", str(stranger))


def _top(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    capsys.readouterr()
    assert main(["top", "--once", *options]) == 0
    return capsys.readouterr().out


def test_files_are_written_where_the_session_is(
    services: list[Service], token: Path, data: Path, tmp_path: Path
) -> None:
    """Nothing tells whether agents of other hosts see the same directory; here they may not even write there."""
    job = JobGraph("files")
    job.add_operator(
        StreamOperatorNode(operator_type=OperatorType.SOURCE, operator_id="source", source=f"{data}/*.parquet")
    )
    job.add_operator(
        StreamOperatorNode(
            operator_type=OperatorType.SINK, operator_id="out", parallelism=3, sink=tmp_path / "job.parquet"
        )
    )
    job.connect("source", "out")
    with sabot_sql.connect(url(services), token_file=token, agents=2) as session:
        assert session.run_job(job).fetchall() == [("out", f"{tmp_path}/job.parquet", 200_000)]
        copy = f"COPY (FROM '{data}/*.parquet') TO '{tmp_path}/copied' (FORMAT parquet, PER_THREAD_OUTPUT)"
        assert session.query(copy).fetchall() == [(200_000,)]
    parts = sorted((tmp_path / "job.parquet").iterdir())
    assert [path.name for path in parts] == [f"part-{i:05d}.parquet" for i in range(3)]
    for folder in ("job.parquet", "copied"):
        written = pa.concat_tables(pq.read_table(path) for path in (tmp_path / folder).iterdir())
        assert sorted(written["i"].to_pylist()) == list(range(200_000))


def test_frames_and_tables_of_the_session_reach_the_agents(services: list[Service], token: Path) -> None:
    frame = pa.table(
        {"a": range(100_000), "b": [i % 11 for i in range(100_000)], "t": ["x" * (i % 5) for i in range(100_000)]}
    )
    with sabot_sql.connect(url(services), token_file=token, agents=2) as session:
        session.query("CREATE TABLE kept AS SELECT i AS b, 'name ' || i AS name FROM range(11) t(i)")
        sql = "SELECT name, sum(a), max(t) FROM frame JOIN kept USING (b) GROUP BY name ORDER BY name"
        result = session.query(sql)
        assert result.stats["mode"] == "distributed"
        with sabot_sql.connect() as alone:
            alone.query("CREATE TABLE kept AS SELECT i AS b, 'name ' || i AS name FROM range(11) t(i)")
            assert result.fetchall() == alone.query(sql).fetchall()
        assert session.query("SELECT count(*), sum(a) FROM frame WHERE b > 20").fetchall() == [(0, None)]
    assert frame.num_rows == 100_000


def test_two_sessions_and_many_queries_at_once(services: list[Service], token: Path) -> None:
    failures: list[BaseException] = []

    def ask(session: sabot_sql.Session, number: int) -> None:
        try:
            low = number * 1000
            sql = f"SELECT i % 7 AS k, sum(i) FROM range({low}, {low + 20_000}) t(i) GROUP BY k ORDER BY k"
            rows = range(low, low + 20_000)
            assert session.query(sql).fetchall() == [(k, sum(i for i in rows if i % 7 == k)) for k in range(7)]
        except BaseException as error:  # noqa: BLE001 - the test fails with it
            failures.append(error)

    with (
        sabot_sql.connect(url(services), token_file=token, agents=2) as one,
        sabot_sql.connect(url(services), token_file=token, agents=2) as two,
    ):
        threads = [threading.Thread(target=ask, args=((one, two)[n % 2], n)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(100)
        assert not failures
        with (
            pytest.raises(AgentError, match="serves 2 sessions already"),
            sabot_sql.connect(url(services), token_file=token, agents=2) as three,
        ):
            three.query(GROUPS)
    with sabot_sql.connect(url(services), token_file=token, agents=2) as four:
        assert four.query(GROUPS).fetchall() == EXPECTED


def test_an_agent_that_is_killed_is_replaced_by_none_and_the_query_goes_on(
    services: list[Service], token: Path
) -> None:
    with sabot_sql.connect(url(services), token_file=token, agents=2) as session:
        assert session.query(GROUPS).fetchall() == EXPECTED
        killed = threading.Event()

        def observe(_: object) -> None:
            if not killed.is_set():
                killed.set()
                services[1].kill()

        sql = """
            WITH l AS (SELECT i, i % 1000 AS k FROM range(3000000) t(i)),
                 r AS (SELECT i AS k, i * 2 AS v FROM range(1000) t(i))
            SELECT v % 10 AS g, count(*), sum(l.i) FROM l JOIN r USING (k) GROUP BY g ORDER BY g
        """
        result = session.query(sql, observer=observe)
        assert result.fetchall() == sabot_sql.query(sql).fetchall()
        if not killed.is_set():
            services[1].kill()
        assert session.query(GROUPS).fetchall() == EXPECTED


def test_all_agents_killed_is_an_error(services: list[Service], token: Path) -> None:
    with sabot_sql.connect(url(services), token_file=token, agents=2) as session:
        assert session.query(GROUPS).fetchall() == EXPECTED
        for service in services:
            service.kill()
        began = time.monotonic()
        with pytest.raises(AgentError):
            session.query(GROUPS)
        assert time.monotonic() - began < 60


def test_a_service_that_is_not_there_is_skipped_and_named(services: list[Service], token: Path) -> None:
    with socket.socket() as vacant:
        vacant.bind(("127.0.0.1", 0))
        port = vacant.getsockname()[1]
    with (
        sabot_sql.connect(f"{url(services)},127.0.0.1:{port}", token_file=token, agents=3) as session,
        pytest.warns(RuntimeWarning, match=f"skipped: 127.0.0.1:{port}: Connection refused"),
    ):
        assert session.query(GROUPS).fetchall() == EXPECTED
    with (
        sabot_sql.connect(f"grpc://127.0.0.1:{port}", token_file=token, agents=2) as session,
        pytest.raises(AgentError, match=f"no agent of the cluster can be reached: 127.0.0.1:{port}"),
    ):
        session.query(GROUPS)


def test_sigterm_drains(services: list[Service], token: Path) -> None:
    with sabot_sql.connect(url(services), token_file=token, agents=2) as session:
        assert session.query(GROUPS).fetchall() == EXPECTED
        services[0].kill(signal.SIGTERM)
        wait_until(lambda: session.query(GROUPS).fetchall() == EXPECTED and services[0].process.poll() is not None)
        assert services[0].process.returncode == 0
        assert list((services[0].folder / "spill").iterdir()) == []
        assert session.query(GROUPS).fetchall() == EXPECTED


def test_a_service_leaves_nothing_when_it_is_ended(services: list[Service], token: Path) -> None:
    with sabot_sql.connect(url(services), token_file=token, agents=2) as session:
        session.query(GROUPS)
        for service in services:
            service.kill(signal.SIGINT)
        for service in services:
            assert service.process.wait(20) == 0
            assert list((service.folder / "spill").iterdir()) == []


def test_another_token_is_refused(services: list[Service], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.touch(mode=0o600)
    other.write_text("another-token-altogether")
    with (
        sabot_sql.connect(url(services), token_file=other) as session,
        pytest.raises(AgentError, match="no token of this session"),
    ):
        session.query(GROUPS)


def test_files_outside_the_data_directories_are_not_read(services: list[Service], token: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.parquet"
    pq.write_table(pa.table({"i": range(1000)}), secret)
    with sabot_sql.connect(url(services), token_file=token, agents=2) as session:
        sql = f"SELECT count(*) AS n, sum(i) FROM '{secret}'"
        assert session.query(sql).fetchall() == [(1000, 499_500)]  # the session reads it
        for service in services:
            maps = Path(f"/proc/{service.pid}/fd")
            assert not any(os.path.realpath(fd).endswith("secret.parquet") for fd in maps.iterdir())


def run_agent(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sabot_sql.cli", "agent", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_service_that_would_be_open_to_anybody_does_not_start(token: Path) -> None:
    ended = run_agent("--listen", "0.0.0.0:0", "--token-file", str(token))
    assert ended.returncode == 1
    assert "without TLS and a token" in ended.stderr
    assert "--tls-cert" in ended.stderr
    ended = run_agent("--listen", "127.0.0.1:0")
    assert ended.returncode == 1
    assert "needs --token-file" in ended.stderr
    ended = run_agent("--listen", "nowhere")
    assert ended.returncode == 1
    assert "no address" in ended.stderr


def test_other_versions_are_refused_and_both_are_named(
    services: list[Service], token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from sabot_sql.cluster import link
    from sabot_sql.protocol.handshake import own_versions

    other = replace(own_versions(), duckdb="1.4.0")
    monkeypatch.setattr(link, "own_versions", lambda: other)
    with (
        sabot_sql.connect(url(services), token_file=token, agents=2) as session,
        pytest.raises(AgentError, match=f"duckdb 1.4.0 at the session, {own_versions().duckdb} at the agent"),
    ):
        session.query(GROUPS)


def test_an_agent_that_could_not_be_dialled_is_not_dialled_again(token: Path) -> None:
    # A connection of gRPC's dials by itself, about once a second, as long as something refers to it: an error does.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"grpc://127.0.0.1:{listener.getsockname()[1]}"
        ended = threading.Event()

        def hang_up() -> None:
            listener.settimeout(0.05)
            while not ended.is_set():
                try:
                    listener.accept()[0].close()
                except TimeoutError:
                    continue

        hanging_up = threading.Thread(target=hang_up)
        hanging_up.start()
        try:
            with sabot_sql.connect(url, token_file=token, agents=2) as session, pytest.raises(AgentError) as kept:
                session.query(GROUPS)
        finally:
            ended.set()
            hanging_up.join()
        assert "does not answer as an agent" in kept.value.message
        listener.settimeout(4)
        with pytest.raises(TimeoutError):
            listener.accept()
