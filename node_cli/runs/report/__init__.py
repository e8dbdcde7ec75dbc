"""Tables and figures over many runs, read from their folders. Needs no torch."""
