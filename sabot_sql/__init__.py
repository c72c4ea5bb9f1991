"""Distributed DuckDB SQL: one query over several agents, with DuckDB's own answers."""
