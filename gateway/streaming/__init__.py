"""A streamed answer, held back until it has been checked."""
