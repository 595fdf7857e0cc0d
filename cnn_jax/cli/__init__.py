"""The command line: flags in; results, one line for each error, and an exit code out."""
