"""From a folder on disk to a running guard."""
