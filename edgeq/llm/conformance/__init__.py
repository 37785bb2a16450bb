"""What becomes of every field of one dialect in another, by examples: docs/llm-dialects.md is made of them, and each is
a test.

    row.py        a row: an example, and what becomes of it
    chat.py       requests for chat completions -> messages
    messages.py   requests for messages -> chat completions
    responses.py  requests for responses -> chat completions, and their answers and streams back
    gemini.py     chat completions -> generateContent, and its answers and streams back
    answers.py    answers, both ways
    streams.py    events of streams, both ways
    document.py   the page: `python -m edgeq.llm.conformance.document > docs/llm-dialects.md`
"""
