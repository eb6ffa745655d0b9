"""Requests to one or many servers."""
