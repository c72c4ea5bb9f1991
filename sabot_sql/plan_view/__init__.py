"""The shuffle plan of one query as people see it."""
