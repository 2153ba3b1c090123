"""Mirrors `router/mcp`."""
