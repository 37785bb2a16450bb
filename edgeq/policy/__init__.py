"""Step 3 of 5, policy: on what terms a request goes on: who asks, whom to believe, how
often, until when, whether again, and what to add to its head."""
