"""What is right and tested, but off by default since it was measured to bring nothing."""
