"""Nodes that only a distributed plan has."""
