"""Supabase Realtime-driven reactive worker for A2A agents."""
