"""Published guard models: a file for each family says how it is asked, how it answers, and what its answers mean."""
