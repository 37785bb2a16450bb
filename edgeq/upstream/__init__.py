"""Step 4 of 5, upstream: to an endpoint of a named service, over a connection from its pool."""
