"""Rewrites of the logical plan before it is distributed."""
