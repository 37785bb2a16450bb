"""One module for each way to speak to a model: bytes <-> edgeq.llm.message.

openai_chat, anthropic, gemini and responses have the same functions and classes; their parts are `*_request`,
`*_answer` and `*_stream`, and table.py finds them by name. For all of them:

    base.py         what streams' decoders and encoders are; typed looks into JSON, with the parameter in the error
    json_stream.py  what decoders have in common; sequence.py  parts that come mixed, one after the other
    turns.py        turns for dialects in which the system is none, and neighbours never have the same role
    inputs.py       numbers of Anthropic's tools, which lose no digit
    errors.py       errors of all dialects, whole and within a stream
"""
