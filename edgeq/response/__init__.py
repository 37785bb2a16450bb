"""Step 5 of 5, response: the relay of both directions, refusals, and one access-log line whatever happened.

sending.py   a request through the limits to its upstream, try by try; relay.py  its answer, failures, and end
tries.py     another try, or a second one beside the first (hedge.py); grace.py  an answer from elsewhere
rescue.py    what a client is told of a refusal; access_log.py  its line
"""
