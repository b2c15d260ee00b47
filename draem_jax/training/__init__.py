"""How the networks learn: the state of a run, its update, and what watches over it."""
