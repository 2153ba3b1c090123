"""What the network sees: authentication, routes, provider adapters, streaming, the command line."""
