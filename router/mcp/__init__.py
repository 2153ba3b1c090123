"""MCP, the Model Context Protocol: its messages, and the vault as tools."""
