"""PostgREST, as far as supabase clients use it: requests become one transaction each."""
