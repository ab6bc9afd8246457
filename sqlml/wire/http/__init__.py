"""SQL over HTTP, on the port of PostgreSQL's clients; and the frames of guests, which begin there."""
