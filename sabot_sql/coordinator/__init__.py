"""The coordinator: decides which task runs where and when, and what happens when one fails."""
