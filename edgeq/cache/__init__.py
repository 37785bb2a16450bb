"""Step 3b, cache: may a stored answer be used, or one that somebody else is waiting for?

    request --> wish (what it allows) --> store --fresh--> answered here
                                            |--stale, within stale-while-revalidate--> answered here, and refreshed
                                            |--else--> flight: lead it to the upstream, or wait for who does

It plugs in between policy and admission: rates count a request that is answered here, limits and queues do not see it.
``response.grace`` tells it what became of a request that went on. Each worker has a cache of its own; a route without
one (None) skips this step.
"""
