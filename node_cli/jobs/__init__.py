"""What a command does once its command line has proved sound: one file for each. All of it imports torch."""
