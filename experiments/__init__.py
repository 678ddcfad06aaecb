"""Runners: absl flags in, pictures, tables and JSON out. They use gaussjax's public names alone."""
