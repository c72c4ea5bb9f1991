"""Agents on other hosts: what starts them, how a session dials them and keeps hold of them."""
