"""config.yaml: how it is written, and what it means once loaded."""
