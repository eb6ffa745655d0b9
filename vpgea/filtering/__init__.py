"""Cross-view evaluation: posterior paths seen from the prior's view, and what is selected of them."""
