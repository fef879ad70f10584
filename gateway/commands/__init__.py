"""One file for each command of `libragate`."""
