"""Cut a distributed plan into stages and write each as one DuckDB SELECT."""
