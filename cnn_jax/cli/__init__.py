"""The command line: it parses the flags, runs a mode, and reports each error in one line with an exit code."""
