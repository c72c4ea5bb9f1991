"""The agent service: one process that serves agents to sessions on other hosts."""
