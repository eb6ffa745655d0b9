"""The command line: options in, progress on stderr, one result on stdout."""
