"""Rules about the vocabulary, the head and the blank: known before training begins."""
