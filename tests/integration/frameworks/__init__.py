"""Executors with the real packages of the frameworks, against a scripted model on loopback."""
