"""Sign-in: ``/auth/v1`` as the Supabase CLI runs it, as far as a signed-in user needs it."""
