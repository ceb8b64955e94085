"""`python -m gansegctl`."""

from gansegctl.cli import main

main()
