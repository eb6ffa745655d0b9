"""What was measured, as one page for people: what is shown, how it looks, and figures drawn as SVG."""
