"""A command-line training tool for Neural ODEs."""

__version__ = "0.2.0"
