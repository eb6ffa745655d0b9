"""The engine `sglang`: a server process of our own, or servers behind URLs. SGLang itself is never imported here."""
