"""Step 3 of 5, policy: on what terms a request goes on: whom to believe, what to add to its head."""
