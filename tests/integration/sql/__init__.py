"""The SQL functions, against real PostgreSQL over plain connections."""
