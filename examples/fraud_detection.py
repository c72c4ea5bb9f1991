"""The fraud-detection pipeline: a job graph of four operators over generated transactions with planted frauds.

``transactions(path, rows)`` writes data of which every fraud is known; ``fraud_job(path)`` is the job that finds them.

    python examples/fraud_detection.py --rows 1000000 --agents 4
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import sabot_sql
from sabot_sql import JobGraph, OperatorType, Session, StreamOperatorNode

MERCHANTS = 500
_PER_USER = 100
"""Transactions of a user without fraud: one about every seven hours, at home, of 20 to 40 and of 80 to 100 in turn.

Such a history has a deviation of 20 at least, so that none of them is 4 σ above those before it by chance.
"""
_MOST_IN_TEN_MINUTES = 5

KINDS = ("burst", "two countries", "amount")
"""More than five transactions in ten minutes; two countries within an hour; an amount above mean + 4 σ of what the
user spent before."""


@dataclass(frozen=True)
class FraudData:
    """Files of generated transactions, users and merchants, and the frauds in them: kind, user, transaction."""

    transactions: Path
    users: Path
    merchants: Path
    planted: frozenset[tuple[str, int, int]]


def transactions(directory: Path, rows: int, *, seed: int = 1, files: int = 4) -> FraudData:
    """Write ``rows`` transactions and a few more for the frauds among them, all of it a function of ``seed``."""
    users = max(1, rows // _PER_USER)
    with sabot_sql.connect() as session:
        session.execute(
            f"""
            CREATE MACRO dice(x, salt) AS (hash(x, salt, {seed}) >> 11) / 9007199254740992.0;
            CREATE MACRO home(u) AS (['DE', 'FR', 'IT', 'ES', 'PL', 'NL'])[1 + CAST(floor(dice(u, 1) * 6) AS INTEGER)];
            CREATE MACRO abroad(u) AS (['US', 'BR', 'JP'])[1 + CAST(floor(dice(u, 2) * 3) AS INTEGER)];
            """
        )
        regular = f"""
            SELECT n AS id, n % {users} AS user_id,
                   round(20 + 60 * (n // {users} % 2) + 20 * dice(n, 3), 2) AS amount,
                   CAST(floor(dice(n, 4) * {MERCHANTS}) AS INTEGER) AS merchant,
                   home(n % {users}) AS country,
                   TIMESTAMP '2026-01-01'
                       + to_seconds(n // {users} * 25200 + CAST(floor(dice(n, 5) * 3600) AS BIGINT)) AS ts
            FROM range({rows}) r(n)
        """
        # The frauds of a user follow a regular transaction of theirs, late enough for a history.
        planted = f"""
            SELECT kind, user_id, n, {rows} + (user_id * 3 + k) * 8 + i AS id,
                   CASE kind WHEN 'amount' THEN 5000.0 ELSE round(20 + 20 * dice(user_id, 6), 2) END AS amount,
                   CAST(floor(dice(user_id, 7) * {MERCHANTS}) AS INTEGER) AS merchant,
                   CASE kind WHEN 'two countries' THEN abroad(user_id) ELSE home(user_id) END AS country,
                   TIMESTAMP '2026-01-01' + to_seconds(40 * 25200 + k * 10 * 25200 + 14400
                       + CASE kind WHEN 'two countries' THEN 0 ELSE i * 60 END) AS ts, i
            FROM range({users}) u(user_id),
                 (VALUES ('burst', 0, 8), ('two countries', 1, 2), ('amount', 2, 1)) f(kind, k, n),
                 range(8) r(i)
            WHERE i < n AND dice(user_id, 10 + k) < 0.01
        """
        # A user is in two countries within an hour: at home, and half an hour later somewhere else.
        moved = f"""
            SELECT * REPLACE (
                CASE WHEN kind = 'two countries' AND i = 0 THEN home(user_id) ELSE country END AS country,
                CASE WHEN kind = 'two countries' AND i = 1 THEN ts + INTERVAL 30 MINUTES ELSE ts END AS ts)
            FROM ({planted})
        """
        session.execute(f"CREATE TEMP TABLE planted AS {moved}")
        columns = "id, user_id, amount, merchant, country, ts"
        whole = f"SELECT {columns} FROM ({regular}) UNION ALL SELECT {columns} FROM planted"
        (directory / "transactions").mkdir()
        for file in range(files):
            path = directory / "transactions" / f"part-{file}.parquet"
            session.execute(
                f"COPY (SELECT * FROM ({whole}) WHERE hash(id) % {files} = {file}) TO '{path}' (FORMAT parquet)"
            )
        homes = f"SELECT u AS user_id, home(u) AS home_country FROM range({users}) r(u)"
        session.execute(f"COPY ({homes}) TO '{directory}/users.parquet'")
        categories = "(['food', 'travel', 'clothes', 'games'])[1 + CAST(floor(dice(m, 8) * 4) AS INTEGER)]"
        session.execute(
            f"COPY (SELECT m::INTEGER AS merchant, {categories} AS category FROM range({MERCHANTS}) r(m)) "
            f"TO '{directory}/merchants.parquet'"
        )
        # A burst is found at the first transaction that is one too many.
        caught = f"CASE kind WHEN 'burst' THEN {_MOST_IN_TEN_MINUTES} WHEN 'two countries' THEN 1 ELSE 0 END"
        found = session.query(f"SELECT kind, user_id, id FROM planted WHERE i = {caught}").fetchall()
    return FraudData(
        directory / "transactions",
        directory / "users.parquet",
        directory / "merchants.parquet",
        frozenset((str(kind), int(user), int(number)) for kind, user, number in found),
    )


ENRICH = """
    SELECT t.id, t.user_id, t.amount, t.country, t.ts, u.home_country, m.category, t.country <> u.home_country AS abroad
    FROM input t JOIN users u ON u.user_id = t.user_id JOIN merchants m ON m.merchant = t.merchant
"""

FRAUD = f"""
    SELECT user_id, id, ts, amount, country, home_country, category, unnest(kinds) AS kind
    FROM (
        SELECT *, list_filter([
            CASE WHEN recent = {_MOST_IN_TEN_MINUTES + 1} THEN 'burst' END,
            CASE WHEN country <> last_country AND ts - last_ts <= INTERVAL 1 HOUR THEN 'two countries' END,
            CASE WHEN seen >= 20 AND amount > mean + 4 * deviation THEN 'amount' END
        ], lambda kind: kind IS NOT NULL) AS kinds
        FROM (
            SELECT *,
                count(*) OVER (by_time RANGE BETWEEN INTERVAL 10 MINUTES PRECEDING AND CURRENT ROW) AS recent,
                lag(country) OVER by_time AS last_country, lag(ts) OVER by_time AS last_ts,
                count(*) OVER before AS seen,
                avg(amount) OVER before AS mean,
                stddev_samp(amount) OVER before AS deviation
            FROM input
            WINDOW by_time AS (PARTITION BY user_id ORDER BY ts),
                before AS (PARTITION BY user_id ORDER BY ts ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
        )
        WHERE recent = {_MOST_IN_TEN_MINUTES + 1} OR country <> last_country OR amount > mean + 4 * deviation
    )
"""


def fraud_job(data: FraudData) -> JobGraph:
    """10 sources, 10 tasks that enrich, 5 that look at each user's transactions, 2 that give alerts."""
    job = JobGraph(job_id="fraud_detection")
    source = StreamOperatorNode(
        operator_type=OperatorType.SOURCE, operator_id="source", parallelism=10, source=f"{data.transactions}/*.parquet"
    )
    enrich = StreamOperatorNode(
        operator_type=OperatorType.MAP,
        operator_id="enrich",
        parallelism=10,
        sql=ENRICH,
        tables={"users": data.users, "merchants": data.merchants},
    )
    fraud = StreamOperatorNode(
        operator_type=OperatorType.GROUP_BY,
        operator_id="fraud",
        parallelism=5,
        stateful=True,
        key_by=["user_id"],
        sql=FRAUD,
    )
    alerts = StreamOperatorNode(operator_type=OperatorType.SINK, operator_id="alerts", parallelism=2)
    for node in (source, enrich, fraud, alerts):
        job.add_operator(node)
    job.connect(source.operator_id, enrich.operator_id)
    job.connect(enrich.operator_id, fraud.operator_id)
    job.connect(fraud.operator_id, alerts.operator_id)
    return job


def one_query(data: FraudData) -> str:
    """The same work as one SQL statement."""
    bound = f"input AS (FROM '{data.transactions}/*.parquet'), users AS (FROM '{data.users}'), "
    bound += f"merchants AS (FROM '{data.merchants}')"
    return f"WITH enriched AS (WITH {bound} {ENRICH}) SELECT * FROM (WITH input AS (FROM enriched) {FRAUD})"


def main() -> None:
    """Generate data, find the frauds, and say whether they are the planted ones."""
    parser = argparse.ArgumentParser(description="Find planted frauds in generated transactions.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--agents", type=int, default=4)
    parser.add_argument("--isolation", choices=["thread", "process"], default="process")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        data = transactions(Path(directory), options.rows)
        with sabot_sql.connect(agents=options.agents, isolation=options.isolation) as session:
            report(session, data)


def report(session: Session, data: FraudData) -> None:
    """Run the job and print its plan and what it found."""
    alerts = session.run_job(fraud_job(data))
    print(alerts.plan.text(), end="\n\n")
    found = alerts.pl().select("kind", "user_id", "id").rows()
    missed, wrong = data.planted - set(found), set(found) - data.planted
    for kind in KINDS:
        print(f"{kind}: {sum(alert[0] == kind for alert in found)} found")
    print(f"{len(data.planted)} planted, {len(missed)} missed, {len(wrong)} found that are none")


if __name__ == "__main__":
    main()
