"""One process, one loop, one shard: `app.py` wires the steps of a request together, `run_io.py` runs them."""
