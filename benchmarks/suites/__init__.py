"""Public conformance suites, run against any gateway.

Each runner takes ``--target HOST:PORT`` of a gateway whose upstream echoes bodies, or ``--gateway nginx|haproxy|edgeq``
to start one with such an upstream, and prints a score. The suites themselves are not part of this repository:
``--checkout DIR`` names a copy, of which only the test data is read.
"""
