"""Operators, job graphs, execution graphs, and what the planner takes and gives."""
