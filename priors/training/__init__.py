"""Data that networks learn from, and their training; nothing here is needed to track."""
