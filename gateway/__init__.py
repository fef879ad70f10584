"""HTTP in, HTTP out: the gateway itself."""
