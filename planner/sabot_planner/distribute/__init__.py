"""Decide where rows must move, and prove that rows which must meet do meet."""
