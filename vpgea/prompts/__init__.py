"""The two views of a question as token ids: the prior's plain prompt, the posterior's with a private note."""
