"""Step 4b of 6, llm: terms and accounting for model traffic; plugs into route, policy and response.

A request for a model is read whole, put into the words of whoever answers it, sent through that provider's bulkhead
like any other request, and its answer is put back into the words of whoever asked:

    dialects/    bytes of a dialect <-> message.py, whole and streamed; pairs of equal dialects are never taken apart
    message.py   a request, an answer and a stream's events in no dialect
    sse.py       server-sent events from bytes cut anywhere
    requested.py, passing.py, shapes.py   what is looked at in requests and answers of equal dialects
    conformance/ what becomes of each field and event: docs/llm-dialects.md

    asking.py    a request until it is asked of a target; exchange.py  its targets, one after the other, and its end
    answering.py what a target answers, until the client has the last of it

What it will use is reserved before it is sent, and corrected after it:

    estimate.py  tokens that a request will use, learned by tenant and model; price.py  what they cost
    meter.py     what one subject may use: requests and tokens a minute, requests at once, money; machine-wide
    ledger.py    reserve by several meters, all or nothing; settle; limit_headers.py  what clients are told of it
    promise.py   when to come again: a time of his own for each who was turned away
    unfinished.py  what it has used if nobody waits for its answer any more
    gate.py      the queue before one model at one provider's key; pauses.py  when it is not asked at all
    provider_limits.py, hearing.py   what the provider says of its limits, and what that changes
"""
