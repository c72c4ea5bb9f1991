"""The commands of durable queries: ``sabot-sql submit | queries | attach | cancel | doctor``."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

import sabot_sql
from sabot_sql.detached.doctor import clean, diagnose, stop_host
from sabot_sql.detached.known_queries import find_query, list_queries, queries_table
from sabot_sql.detached.state_directory import StateDirectory


def print_submitted(session: sabot_sql.Session, sql: str, options: argparse.Namespace) -> None:
    """Hand the query over, and print its id alone."""
    print(session.submit(sql, timeout=options.timeout, priority=options.priority, scope={}).query_id)


def print_queries(options: argparse.Namespace) -> None:
    """Print what is known of durable queries, the latest first."""
    states = list_queries(options.limit)
    if options.format == "json":
        for state in states:
            print(json.dumps({name: value for name, value in asdict(state).items() if name != "plan"}))
        return
    found = {"durable_queries": queries_table(states)}
    with sabot_sql.connect() as session:
        print(session.query("FROM durable_queries", scope=found).to_text(options.limit))


def attached(options: argparse.Namespace) -> sabot_sql.Result:
    """The rows of a query, once it has ended."""
    return find_query(options.query_id).result(options.timeout)


def print_cancelled(options: argparse.Namespace) -> None:
    """Stop a query, and print what has become of it."""
    handle = find_query(options.query_id)
    handle.cancel()
    print(f"{handle.query_id}: {handle.state('running', 5.0).state}")


def print_diagnosis(options: argparse.Namespace) -> None:
    """Print what durable queries have left, after what was asked to be stopped or cleaned was."""
    state = StateDirectory.chosen()
    if options.stop:
        stop_host(state)
    if options.clean:
        clean(diagnose(state))
    found = diagnose(state)
    print(json.dumps(found.json(), indent=2) if options.json else found.text())
