"""The admin socket: one table of commands, spoken as HTTP/1.1 with JSON and as single lines of text."""
