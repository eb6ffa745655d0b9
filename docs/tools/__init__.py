"""What makes the documentation: its pages, its site, and what docs/architecture.md takes from the source."""
