"""The sample site as a test or a measurement starts it: its settings, and processes beside it."""
