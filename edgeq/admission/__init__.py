"""Between policy and upstream: may this request go on, must it wait, or is it refused?

``pressure`` is what the worker as a whole can bear, asked before anything else. Then, for limits on requests in flight:
``ticket`` is a request as the queues see it, ``bulkhead`` a limit with the queue before it, ``queue`` who waits and who
is next, ``congestion`` when the order turns and how long is too long, ``service`` how long a place is held,
``retry_after`` when it is worth coming back; ``limits``, ``adaptive`` (with ``start``, ``knee`` and ``ceiling``) and
``observer`` how the limit of an upstream is learned; ``room`` several workers in one process. What the workers of the
machine share is on the board (``board.resources``).
"""
