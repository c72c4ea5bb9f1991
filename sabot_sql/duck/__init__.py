"""What the catalog and the agents both need of DuckDB itself."""
