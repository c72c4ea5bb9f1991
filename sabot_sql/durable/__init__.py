"""The durable host: a process that outlives kernels, in which DBOS brings queries to their end. The only room of DBOS.

``python -m sabot_sql.durable`` is one; clients start it when they need it, see :mod:`sabot_sql.detached`.
"""
