"""Coverage-guided fuzzing of a connection: ``make fuzz``. Also: a short language in which clients misbehave."""
