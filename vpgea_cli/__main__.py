"""`python -m vpgea_cli` is `vpgea`."""

from vpgea_cli.main import main

main()
