"""Operators, operator graphs, execution graphs, and what the planner takes and gives."""
