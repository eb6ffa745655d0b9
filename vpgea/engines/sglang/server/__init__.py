"""The server process that vpgea starts and stops."""
