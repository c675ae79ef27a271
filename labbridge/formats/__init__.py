"""Messages to the model and back, pure: no I/O, no clock, no lookups of their own."""
