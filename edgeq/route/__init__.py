"""Step 2 of 5, route: where does a request go? Host and path to a Route, however many routes there are."""
