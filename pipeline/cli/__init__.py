"""From a command line to Options and an exit code."""
