"""Text in, Verdict out: guards, and what they run on. Knows nothing of HTTP or of policies."""
