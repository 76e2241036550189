"""The real server's side of FULLNAT: unmodified programs behind a director that is played by bytes."""
