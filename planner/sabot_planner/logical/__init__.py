"""Logical plans: nodes, how exported SQL becomes them, and rewrites."""
