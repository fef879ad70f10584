"""Wire formats, one file each; none knows another."""
