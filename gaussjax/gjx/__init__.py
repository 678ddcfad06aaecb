"""Bytes: a set as a small file `.gjx`, and back."""
