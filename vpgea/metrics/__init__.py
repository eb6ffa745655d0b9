"""Figures of merit with intervals clustered by question."""
