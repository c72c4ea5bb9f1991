from __future__ import annotations

import dataclasses

import pytest

from sabot_sql.config import Isolation, SessionConfig, parse_bytes, parse_config
from sabot_sql.errors import ConfigError

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [(4096, 4096), ("4096", 4096), ("2GB", 2 * 10**9), ("2 GiB", 2 << 30), ("1.5mib", 3 << 19), ("10kB", 10_000)],
)
def test_sizes_are_read_as_duckdb_reads_them(text: int | str, size_bytes: int) -> None:
    assert parse_bytes("memory_limit", text) == size_bytes


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1 parsec", "1e9", -5, True, None])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ConfigError, match="memory_limit"):
        parse_bytes("memory_limit", text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"agents": 0},
        {"agents": True},
        {"agents": "many"},
        {"agents": 10_000},
        {"isolation": "container"},
        {"threads": 0},
        {"partitions": -1},
        {"memory_limit": "1MB"},
        {"config": {"threads = 1; --": 1}},
    ],
)
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(**options)  # type: ignore[arg-type]
    assert next(iter(options)) in error.value.message


@pytest.mark.parametrize("isolation", [Isolation.THREAD, Isolation.PROCESS])
@pytest.mark.parametrize("agents", [1, 2, 7])
def test_the_shares_never_exceed_the_budget(agents: int, isolation: str) -> None:
    config = parse_config(agents=agents, isolation=isolation, memory_limit="1GB")
    instances = agents + 1 if isolation == "process" or agents > 1 else 1
    pools = agents + (isolation == "process")  # thread agents share one with the session
    used = instances * config.duckdb_memory_bytes + pools * config.shuffle_bytes + config.result_bytes
    assert 0.9 * config.working_bytes < used <= 0.95 * config.working_bytes
    assert config.working_bytes + config.standing_bytes == 10**9
    assert config.duckdb_alone_bytes + config.result_bytes <= 0.95 * config.working_bytes


def test_auto_is_one_agent_with_every_core() -> None:
    config = parse_config()
    assert config.agent_count == 1
    assert config.threads >= parse_config(agents=2).threads
    assert config.memory_bytes > 0


def test_another_number_of_agents_keeps_the_rest() -> None:
    config = parse_config(agents=2, memory_limit="1GB", partitions=5)
    other = config.with_agents(3, "process")
    assert (other.agents, other.isolation, other.partitions) == (3, Isolation.PROCESS, 5)
    assert config.with_agents(None, None) == config


def test_threads_that_the_user_gave_are_kept_whatever_agents_a_query_asks_for() -> None:
    given, shared = parse_config(agents=2, threads=5), parse_config(agents=2)
    for agents in (1, 2, 7, "auto"):
        assert given.with_agents(agents, None).threads == 5  # type: ignore[arg-type]
        assert shared.with_agents(agents, None).threads == parse_config(agents=agents).threads  # type: ignore[arg-type]


def test_the_configuration_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SessionConfig().threads = 3  # type: ignore[misc]


def test_plan_settings_follow_the_options() -> None:
    settings = parse_config(agents=2, adaptive=False, broadcast_limit="1MB").plan_settings()
    assert settings.adaptive is False
    assert settings.broadcast_bytes == 10**6
