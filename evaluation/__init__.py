"""One harness for every guard the runtime can load: scores, reports, Libra-Test, robustness."""
