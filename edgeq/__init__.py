"""edgeq: an HTTP gateway that treats everything that can fill up as a queue.

The path of a request, and the rooms of this package in that order::

    listener -> route -> policy -> upstream -> response

    1 listener   someone connects: accept, PROXY preface, TLS, read a request
    2 route      where does it go: host and path to a route
    3 policy     on what terms: forwarding headers, trust, limits
    3b cache     has it been asked before: stored answers, identical requests on their way
    4 upstream   through a pool to an endpoint
    5 response   and back: relay, refusals, access log

``admission`` holds the limits and queues that a request meets on its way from 3 to 4: of its tenant, route, upstream.

``wire`` holds what 1, 4 and 5 share (bytes to heads and body framing), ``worker`` wires one process together,
``supervisor`` keeps the processes and the listening sockets, ``config`` reads ``edgeq.toml``, ``observe`` writes logs,
``trace`` spans for OpenTelemetry, ``cli`` is the command line, ``top`` its live screen.
"""

__version__ = "0.1.0"
