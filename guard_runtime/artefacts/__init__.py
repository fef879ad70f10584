"""A guard on disk, checked against its manifest."""
