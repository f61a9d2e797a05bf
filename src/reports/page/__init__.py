"""A study as one HTML page that works offline, the server that follows it, and the list of all studies."""
