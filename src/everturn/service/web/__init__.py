"""What the service answers over HTTP: routes, who may use them, and what is refused before anybody reads it."""
