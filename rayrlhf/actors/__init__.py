"""Ray actors: hosts of roles, and the loop of sessions around the reward model."""
