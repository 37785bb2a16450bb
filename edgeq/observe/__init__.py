"""What edgeq says about itself while it runs: the event log, the access log's way to its target, and what is shown.

``log_io`` sets up structlog for events, to stderr. ``access_io`` writes the lines that ``response.access_log`` renders.
``overview`` makes what the admin socket shows, ``metrics`` what Prometheus gets; ``chronicle`` keeps the last events.
"""
