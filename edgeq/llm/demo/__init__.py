"""A provider to try the LLM gateway against: `edgeq demo-llm`. It speaks as OpenAI, Anthropic, Gemini and vLLM do,
makes up its answers, and misbehaves where it is asked to.

    behaviour.py   what it shall do: options of the command line, and per request directives in the model's name
    content.py     what an answer says, in no dialect: words, thoughts, calls of tools, tokens
    checks.py      what is wrong with a request, as providers would say it
    chat.py  responses.py  embeddings.py  openai_errors.py    OpenAI's dialects
    messages.py    Anthropic's        gemini.py    Google's
    *_answer.py    what the three larger of them say; without it, what they are asked
    dialects.py    which path speaks which of them
    limits.py      tokens and requests per minute of each key and model, and what has happened there
    frames.py  reply.py    an answer as the bytes to send, in the pieces and at the times at which to send them
    app.py         a request -> a reply
    server_io.py   sockets

Nothing of `edgeq.llm.dialects` is used: it is a witness of what the translators do, so it must not share their errors.
What is strict here is strict at the provider.
"""
