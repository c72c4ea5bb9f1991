"""Decide again while the query runs, by what was measured."""
