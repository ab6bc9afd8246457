"""``python -m sqlml``: the shell."""

from sqlml.shell.main import main

raise SystemExit(main())
