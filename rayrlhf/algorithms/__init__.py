"""PEBBLE and PrefPPO on RLlib: configuration, rollout actors, learners, checkpoints."""
