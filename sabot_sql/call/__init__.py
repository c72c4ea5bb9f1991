"""One call of the public face: the request, its locks and agents, and how it runs."""
