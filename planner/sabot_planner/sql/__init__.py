"""The SQL text between DuckDB and the planner: reader, writer, scalars, types."""
