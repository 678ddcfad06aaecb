"""The stages of acceptance.py: each measures its criteria and returns them as rows."""
