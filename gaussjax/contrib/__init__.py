"""What is right and tested, but was measured to bring nothing: no preset has it."""
