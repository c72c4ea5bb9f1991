"""What a session can see: binding on DuckDB, sources, settings and errors."""
