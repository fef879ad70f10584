"""What is remembered of each request, and where it is written."""
