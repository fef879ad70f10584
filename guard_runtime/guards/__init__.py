"""The guards that ship."""
