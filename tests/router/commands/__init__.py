"""Mirrors `router/commands`."""
