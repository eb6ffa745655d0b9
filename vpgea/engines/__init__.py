"""What samples and scores: transformers in this process, or SGLang servers."""
