"""What each command does once its command line has proved sound. All of it imports torch; `cli/` does not."""
