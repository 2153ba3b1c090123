"""The store on PostgreSQL. Only `connection` imports psycopg, and only when a connection is opened."""
