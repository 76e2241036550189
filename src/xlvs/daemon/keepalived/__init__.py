"""`xlvs keepalived` at work: the parent, and what its children have in common."""
