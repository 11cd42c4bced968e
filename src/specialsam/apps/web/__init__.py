"""`specialsam serve`: a web page and a JSON API; the model works in a process of its own."""
