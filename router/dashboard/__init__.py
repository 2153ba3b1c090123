"""The dashboard's server side: sessions, the way from a session to the public API, and figures of its own.

Its pages are a client of the API as any other; what is here lets a browser be one without holding a key.
"""
