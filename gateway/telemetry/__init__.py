"""Numbers for operators; no request ever waits for them."""
