"""`python -m vpgea_cli` is `vpgea`."""

from vpgea_cli.entry import main

main()
