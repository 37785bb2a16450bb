"""Step 4b of 6, llm: terms and accounting for model traffic; plugs into route, policy and response.

A request for a model is read whole, put into the words of whoever answers it, sent through that provider's bulkhead
like any other request, and its answer is put back into the words of whoever asked:

    dialects/    bytes of a dialect <-> message.py, whole and streamed; pairs of equal dialects are never taken apart
    message.py   a request, an answer and a stream's events in no dialect
"""
