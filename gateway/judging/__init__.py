"""Runs the guards, applies the policy, and changes the text accordingly."""
