"""Is an answer right? Graders, and the isolated processes in which they work."""
