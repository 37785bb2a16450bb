"""One process, one loop, one shard: `app.py` wires the steps of a request together, `run_io.py` runs them.

`listeners_io.py`, `routes.py` and `upstreams.py` hold what stays when the configuration changes.
"""
