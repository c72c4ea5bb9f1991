"""Windows without PARTITION BY, computed range by range."""
