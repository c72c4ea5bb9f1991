"""Queries that outlive the process that asks them: what a session says to the durable host, and what it reads of it."""
