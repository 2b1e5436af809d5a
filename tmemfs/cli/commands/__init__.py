"""One module for each command: `parser()` and `run(arguments)`, which returns the exit code."""
