"""Bytes to heads and body framing: shared by steps 1 (listener), 4 (upstream) and 5 (response).

Bytes stay bytes: a head is found, split into lines and classified; unchanged lines are forwarded as they came. Bodies
are opaque; the framer only counts. Nothing here does I/O.
"""
