"""Rows to train on: read, written, curated, held out."""
