"""Agents: each runs one task at a time on DuckDB and keeps what it wrote in its shuffle manager."""
