"""Answers of many providers and servers, as they really look."""
