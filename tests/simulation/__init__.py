"""Whole streams on a seeded loop with virtual time: the real stream, gate, judge and batcher in a simulated world."""
