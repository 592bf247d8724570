"""`python -m services.dev` is `posta`."""

from services.dev.cli import main

main()
