"""`python -m flows.cli …` is `spaceport …`."""

from flows.cli.app import main

main()
