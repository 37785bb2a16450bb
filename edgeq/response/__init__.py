"""Step 5 of 5, response: the relay of both directions, refusals, and one access-log line whatever happened."""
