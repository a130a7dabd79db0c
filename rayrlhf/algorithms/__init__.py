"""PEBBLE on RLlib: configuration, rollout actors, learner with its replay, checkpoints."""
