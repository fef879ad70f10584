"""Many callers, one model: batches, cached verdicts, a circuit breaker."""
