"""Instructions in words: paraphrases and their embeddings."""
