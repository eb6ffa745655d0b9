"""Files: Arrow shards, JSON records and checksums, each written once and committed whole."""
