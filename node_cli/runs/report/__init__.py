"""Tables and pictures over many runs, read from their folders. Needs no torch."""
