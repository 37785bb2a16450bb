"""One module for each way to speak to a model: bytes <-> edgeq.llm.message."""
