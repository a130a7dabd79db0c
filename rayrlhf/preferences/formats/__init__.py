"""Preference data as others keep it: triplets in JSON and pickle, chosen and rejected, LeRobot's folders, CSV.

Each format turns into `Entry`s (`entries`), which become queries and answers in one way.
"""
