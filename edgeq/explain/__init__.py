"""`edgeq explain`: the one thing that is short now, why, since when, how one sees it, and what to do next.

watch    what the supervisor notes twice a second, so that "now" can be told from "before"
gather   the board, the sockets and /proc to one record of facts; no worker is asked
facts    that record
causes   a table: each cause is a pure function of the facts
verdict  the findings to one answer, for people and as JSON
recall   one request, by its id: what each worker remembers of those that were refused, degraded, failed over or
         slow (keep.py)
"""
