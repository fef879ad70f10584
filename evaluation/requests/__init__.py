"""Evaluation of whole requests: as callers send them, judged as the gateway judges them."""
