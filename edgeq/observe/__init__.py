"""What edgeq says about itself while it runs: the event log and the access log's way to its target.

``log_io`` sets up structlog for events, to stderr. ``access_io`` writes the lines that ``response.access_log`` renders.
"""
