"""The OpenAPI document: one table of operations, and how it becomes `/openapi.json`."""
